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

// The playground's form is sent without leaving the page: these parts are replaced by those of the page that comes back.
const parts = ["#playground", "#snippets"];

const replaceParts = (page) => {
  if (!page.querySelector("#playground")) {
    document.querySelector("main").replaceWith(page.querySelector("main"));
  } else {
    for (const part of parts) document.querySelector(part).replaceWith(page.querySelector(part));
  }
  const main = document.querySelector("main");
  enhance(main);
  const refused = main.querySelector("[aria-invalid], .message.error");
  announce(refused ? main.querySelector(".error:not(.field .error), .field .error")?.textContent ?? "" : "Your picture is ready");
  (main.querySelector("[aria-invalid]") ?? main.querySelector("#result") ?? main).focus();
};

const generate = async (form) => {
  const result = document.getElementById("result");
  const button = form.querySelector("button[type=submit]");
  const body = new URLSearchParams(new FormData(form));
  button.disabled = true;
  button.textContent = "Drawing…";
  result.setAttribute("aria-busy", "true");
  announce("Drawing");
  try {
    const response = await fetch(form.action, { method: "POST", body });
    replaceParts(new DOMParser().parseFromString(await response.text(), "text/html"));
  } catch {
    // The response was lost. The same form is the same request to the server, so that sending it again is safe.
    button.disabled = false;
    button.textContent = "The connection was lost. Try again";
    result.removeAttribute("aria-busy");
    announce(button.textContent);
  }
};

document.addEventListener("submit", (event) => {
  if (event.target.id !== "generation-form") return;
  event.preventDefault();
  if (!event.target.querySelector("button[type=submit]").disabled) generate(event.target);
});

enhance(document);
