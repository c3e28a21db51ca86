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

// A part of a page that shows how far generations are. While it has a `data-source`, the page there is looked at, one look
// after the other and more and more rarely, and the part of it that has the same id takes the place of this one whenever
// its `data-state` has changed.
const LOOK_MS = 500;
const LOOK_MS_MAX = 5000;
const HIDDEN_LOOK_MS = 30000;

class LivePart extends HTMLElement {
  connectedCallback() {
    this.looks = 0;
    this.isLooking = false;
    this.shownAt ??= performance.now(); // it may be shown again, in a form that was refused
    this.clock = setInterval(() => this.showSeconds(), 1000);
    this.lookNow = () => {
      if (!document.hidden) this.look();
    };
    document.addEventListener("visibilitychange", this.lookNow);
    this.lookLater();
  }

  disconnectedCallback() {
    clearInterval(this.clock);
    clearTimeout(this.timer);
    document.removeEventListener("visibilitychange", this.lookNow);
  }

  showSeconds() {
    const passed = Math.floor((performance.now() - this.shownAt) / 1000);
    for (const seconds of this.querySelectorAll("[data-seconds]")) {
      seconds.textContent = `${Number(seconds.dataset.seconds) + passed} s`;
    }
  }

  lookLater() {
    clearTimeout(this.timer);
    if (!this.dataset.source || !this.isConnected) return;
    const pause = document.hidden ? HIDDEN_LOOK_MS : Math.min(LOOK_MS * 1.1 ** this.looks, LOOK_MS_MAX);
    this.timer = setTimeout(() => this.look(), pause);
  }

  async look() {
    if (this.isLooking || !this.dataset.source) return;
    this.isLooking = true;
    this.looks += 1;
    try {
      const response = await fetch(this.dataset.source);
      if (response.status < 500) this.showThatOf(await parse(response));
    } catch {
      // The next look may find the server again.
    }
    this.isLooking = false;
    this.lookLater();
  }

  // A page without this part is that of a session that has ended, or of a generation that was deleted.
  showThatOf(page) {
    if (!this.isConnected) return;
    const part = page.getElementById(this.id);
    if (!part) {
      delete this.dataset.source;
      showMessage(this, ...refusalOf(page));
    } else if (part.dataset.state !== this.dataset.state) {
      const focused = this.contains(document.activeElement) ? document.activeElement.id : null;
      const { announcement } = this.dataset;
      this.replaceWith(part);
      enhance(part);
      if (part.dataset.announcement !== announcement) announce(part.dataset.announcement);
      if (focused !== null) (document.getElementById(focused) ?? part.closest("[tabindex]")).focus();
    }
  }
}

// The button that cancels a generation: the page that comes back shows what has become of it.
document.addEventListener("submit", async (event) => {
  const form = event.target.closest("live-part form.cancel");
  if (!form) return;
  event.preventDefault();
  const part = form.closest("live-part");
  try {
    const response = await fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    const page = await parse(response);
    if (response.ok) part.showThatOf(page);
    else showMessage(part, ...refusalOf(page));
  } catch {
    showMessage(part, "The connection was lost. Try again.");
  }
});

// The playground's form is sent without leaving the page: these parts are replaced by those of the page that comes back.
const parts = ["#playground", "#snippets", "#notices", "#balance"];

const replaceParts = (page) => {
  const size = document.getElementById("size").value;
  const result = document.getElementById("result");
  result.removeAttribute("aria-busy");
  for (const part of parts) document.querySelector(part)?.replaceWith(page.querySelector(part) ?? "");
  chooseSize(size);
  // A refused form has no generation of its own: the one before is shown on.
  if (!document.getElementById("generation")) document.getElementById("result").replaceWith(result);
  const main = document.querySelector("main");
  enhance(main);
  // A generation that has failed meanwhile says so itself, in the same words as one that is watched.
  const refused = main.querySelector("[aria-invalid], .message.error:not(#generation *)");
  const sentence = refused
    ? main.querySelector(".error:not(.field .error, #generation *), .field .error")?.textContent
    : document.getElementById("generation").dataset.announcement;
  announce(sentence ?? "");
  (main.querySelector("[aria-invalid]") ?? main.querySelector("#result")).focus();
};

// The size that was chosen, where it can be chosen still.
const chooseSize = (size) => {
  const sizes = document.getElementById("size");
  if ([...sizes.options].some((option) => option.value === size)) sizes.value = size;
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
  showMessage(form, ...sentence);
};

// Shows the sentence above the element, in the place of the one before.
const showMessage = (element, ...sentence) => {
  const message = document.createElement("p");
  message.className = "message error";
  message.append(...sentence);
  element.parentElement.querySelector(":scope > .message")?.remove();
  element.before(message);
  announce(message.textContent);
};

// Another page than the playground, such as that of a session that has ended.
const refusalOf = (page) => {
  if (page.querySelector("form[action^='/log-in']")) return ["You were logged out. Log in in another tab, then reload this page."];
  const link = page.querySelector("main a[href^='/log-in']");
  if (link) link.target = "_blank";
  const sentence = page.querySelector(".message.error") ?? page.querySelector("h1");
  return [sentence.textContent, ...(link ? [". ", link, " in another tab, then try again."] : [])];
};

const generate = async (form) => {
  const result = document.getElementById("result");
  const button = form.querySelector("button[type=submit]");
  const data = new FormData(form); // inputs.js puts the images into it
  const body = data.has("images") ? data : new URLSearchParams(data);
  button.disabled = true;
  button.textContent = "Sending…";
  result.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(form.dataset.jobs, { method: "POST", body });
    const page = await parse(response);
    if (page.querySelector("#playground")) {
      replaceParts(page);
      // The address of the generation: the page shows it again after a reload.
      if (response.redirected) history.replaceState(null, "", response.url);
    } else if (page.querySelector("form[action^='/playground']")) replaceMain(page); // there is no key any more
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
  chooseSize(size);
});

customElements.define("live-part", LivePart);
enhance(document);
