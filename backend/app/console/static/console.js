// Makes the pages more convenient. Every page works without it.

const status = document.getElementById("status");
const announce = (sentence) => {
  status.textContent = sentence;
};

// The server writes times in UTC; this shows them in the time zone of the browser.
const localFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const localizeTimes = (root) => {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.title = time.textContent;
    time.textContent = localFormat.format(new Date(time.dateTime));
  }
};

const showCopyButtons = (root) => {
  for (const button of root.querySelectorAll("button[data-copy]")) {
    button.hidden = !navigator.clipboard;
  }
};

const enhance = (root) => {
  localizeTimes(root);
  showCopyButtons(root);
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  const label = button.firstChild;
  const before = label.textContent;
  label.textContent = "Copied";
  announce("Copied");
  setTimeout(() => {
    label.textContent = before;
  }, 1500);
});

const parse = async (response) => new DOMParser().parseFromString(await response.text(), "text/html");

// The playground's form is sent without leaving the page: these parts are replaced by those of the page that comes back.
const parts = ["#playground", "#snippets"];

const replaceParts = (page) => {
  for (const part of parts) document.querySelector(part).replaceWith(page.querySelector(part));
  const main = document.querySelector("main");
  enhance(main);
  const refused = main.querySelector("[aria-invalid], .message.error");
  announce(refused ? main.querySelector(".error:not(.field .error), .field .error")?.textContent ?? "" : "Your picture is ready");
  (main.querySelector("[aria-invalid]") ?? main.querySelector("#result")).focus();
};

const replaceMain = (page) => {
  document.querySelector("main").replaceWith(page.querySelector("main"));
  document.querySelector("main").focus();
};

// The form stays as it is, with what was entered, beneath this sentence. To the server, the same form is the same request:
// sending it again is safe.
const keepForm = (form, ...sentence) => {
  const button = form.querySelector("button[type=submit]");
  button.disabled = false;
  button.textContent = "Try again";
  document.getElementById("result").removeAttribute("aria-busy");
  const message = document.createElement("p");
  message.className = "message error";
  message.append(...sentence);
  form.parentElement.querySelector(".message")?.remove();
  form.before(message);
  announce(message.textContent);
};

// Another page than the playground, such as that of a session that has ended.
const refusalOf = (page) => {
  const link = page.querySelector("main a[href^='/log-in']");
  if (link) link.target = "_blank";
  return [page.querySelector("h1").textContent, ...(link ? [". ", link, " in another tab, then try again."] : [])];
};

const generate = async (form) => {
  const result = document.getElementById("result");
  const button = form.querySelector("button[type=submit]");
  const data = new FormData(form); // inputs.js puts the images into it
  const body = data.has("images") ? data : new URLSearchParams(data);
  button.disabled = true;
  button.textContent = "Drawing…";
  result.setAttribute("aria-busy", "true");
  announce("Drawing");
  try {
    const page = await parse(await fetch(form.action, { method: "POST", body }));
    if (page.querySelector("#playground")) replaceParts(page);
    else if (page.querySelector("form[action^='/playground']")) replaceMain(page); // there is no key any more
    else keepForm(form, ...refusalOf(page));
  } catch {
    keepForm(form, "The connection was lost. Try again.");
  }
};

document.addEventListener("submit", (event) => {
  if (event.target.id !== "generation-form") return;
  event.preventDefault();
  if (!event.target.querySelector("button[type=submit]").disabled) generate(event.target);
});

// Another model has other sizes and qualities, and takes other images: these parts are those of the page for that model.
document.addEventListener("change", async ({ target }) => {
  if (target.id !== "model") return;
  const model = target.value;
  const page = await parse(await fetch(`/playground?${new URLSearchParams({ model })}`));
  if (target.value !== model || !page.querySelector("#choices")) return;
  const size = document.getElementById("size").value;
  for (const part of ["#choices", "#inputs"]) document.querySelector(part).replaceWith(page.querySelector(part));
  const sizes = document.getElementById("size");
  if ([...sizes.options].some((option) => option.value === size)) sizes.value = size;
});

enhance(document);
