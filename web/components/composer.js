// Where messages are written. Knows the form; what becomes of a message is the session's matter.

const HEIGHT_MAX_PX = 180;

export function mountComposer(store, session, find) {
  const form = find("composer");
  const user = find("user");
  const text = find("message");
  const send = find("send");
  const error = find("error");
  let sending = false;
  let passing = false; // what is told is over once the node is ready again

  const fail = (message, { passes = false, waiting = false } = {}) => {
    error.textContent = message;
    error.hidden = !message;
    error.classList.toggle("waiting", waiting);
    passing = passes;
  };
  const setSending = (now) => {
    sending = now;
    send.disabled = now;
    send.textContent = now ? "Sending…" : "Send";
  };
  const fit = () => {
    text.style.height = "auto";
    text.style.height = `${Math.min(text.scrollHeight + 2, HEIGHT_MAX_PX)}px`;
  };

  const submit = async () => {
    const message = text.value;
    if (sending || !message.trim()) return;
    if (!user.value.trim()) {
      fail("Who are you? Enter a name first.");
      user.focus();
      return;
    }
    store.setUser(user.value.trim());
    setSending(true);
    fail("");
    try {
      await session.post(message, (why) => fail(`${why} Your message is tried again…`, { waiting: true }));
      fail("");
      // What was typed meanwhile is the next message.
      text.value = text.value === message ? "" : text.value.slice(text.value.startsWith(message) ? message.length : 0);
      fit();
    } catch (problem) {
      const kept = problem.passing ? `${problem.message} Your message was not posted: it is kept here.` : problem.message;
      fail(kept, { passes: problem.retryable });
    } finally {
      setSending(false);
    }
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
    text.focus();
  });
  text.addEventListener("input", fit);
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  user.addEventListener("change", () => store.setUser(user.value.trim()));
  user.value = store.user;
  store.on("connection", () => store.state === "live" && passing && fail(""));
  store.on("room", () => {
    fail("");
    text.setAttribute("aria-label", `Message to ${store.room}`);
    if (matchMedia("(pointer: fine)").matches) (user.value ? text : user).focus();
  });
}
