// Makes the pages pleasanter. Every one of them works without it.

const status = document.getElementById("status");
const say = (sentence) => {
  status.textContent = sentence;
};

// Times stand in UTC; here they come in the reader's own.
const inOwnTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const localize = (root) => {
  for (const time of root.querySelectorAll("time[datetime]")) {
    time.title = time.textContent;
    time.textContent = inOwnTime.format(new Date(time.dateTime));
  }
};

const offerToCopy = (root) => {
  for (const button of root.querySelectorAll("button[data-copy]")) {
    button.hidden = !navigator.clipboard;
  }
};

const wake = (root) => {
  localize(root);
  offerToCopy(root);
};

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  const label = button.firstChild;
  const before = label.textContent;
  label.textContent = "Copied";
  say("Copied");
  setTimeout(() => {
    label.textContent = before;
  }, 1500);
});

// The playground: the same form, sent without leaving the page. What comes back is the same page, and parts of it are shown.
const parts = ["#bench", "#snippets"];

const show = (page) => {
  if (!page.querySelector("#bench")) {
    document.querySelector("main").replaceWith(page.querySelector("main"));
  } else {
    for (const part of parts) document.querySelector(part).replaceWith(page.querySelector(part));
  }
  const main = document.querySelector("main");
  wake(main);
  const wrong = main.querySelector("[aria-invalid], .message.wrong");
  say(wrong ? main.querySelector(".wrong:not(.field .wrong), .field .wrong")?.textContent ?? "" : "Your picture is ready");
  (main.querySelector("[aria-invalid]") ?? main.querySelector("#result") ?? main).focus();
};

const draw = async (form) => {
  const result = document.getElementById("result");
  const button = form.querySelector("button[type=submit]");
  const sent = new URLSearchParams(new FormData(form));
  button.disabled = true;
  button.textContent = "Drawing…";
  result.setAttribute("aria-busy", "true");
  say("Drawing");
  try {
    const answer = await fetch(form.action, { method: "POST", body: sent });
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    // The answer was lost. The same form asks for the same picture, so sending it again is safe.
    button.disabled = false;
    button.textContent = "The connection was lost. Try again";
    result.removeAttribute("aria-busy");
    say(button.textContent);
  }
};

document.addEventListener("submit", (event) => {
  if (event.target.id !== "draw") return;
  event.preventDefault();
  if (!event.target.querySelector("button[type=submit]").disabled) draw(event.target);
});

wake(document);
