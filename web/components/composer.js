// Where messages are written. Knows the form; what becomes of a message is the session's matter.

const HEIGHT_MAX_PX = 180;

export function mountComposer(store, session, find) {
  const form = find("composer");
  const user = find("user");
  const text = find("message");
  const send = find("send");
  const error = find("error");
  let sending = false;

  const fail = (message) => {
    error.textContent = message;
    error.hidden = !message;
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
    sending = true;
    send.disabled = true;
    fail("");
    try {
      await session.post(message);
      // What was typed meanwhile is the next message.
      text.value = text.value === message ? "" : text.value.slice(text.value.startsWith(message) ? message.length : 0);
      fit();
    } catch (problem) {
      fail(problem.message);
    } finally {
      sending = false;
      send.disabled = false;
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
  store.on("room", () => {
    fail("");
    text.setAttribute("aria-label", `Message to ${store.room}`);
    if (matchMedia("(pointer: fine)").matches) (user.value ? text : user).focus();
  });
}
