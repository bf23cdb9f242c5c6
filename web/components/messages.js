// The messages of the room that is open. Knows how they look and when to scroll, not where they come from.

import { element, hue, linked } from "./element.js";

const GROUP_MS = 5 * 60 * 1000;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });

export function mountMessages(store, session, find) {
  const log = find("log");
  const scroll = find("scroll");
  const older = find("older");
  const newest = find("newest");
  const empty = find("empty");
  let last = null;
  let following = true; // the view is at its end, and stays there

  const toEnd = () => {
    scroll.scrollTop = scroll.scrollHeight;
    newest.hidden = true;
  };

  const append = (target, message) => {
    const posted = new Date(message.PostedAt);
    const newDay = last === null || day.format(new Date(last.PostedAt)) !== day.format(posted);
    if (newDay) target.append(element("li", { className: "day", text: day.format(posted) }));
    const grouped = !newDay && last.User === message.User && posted - new Date(last.PostedAt) < GROUP_MS;
    const initial = [...message.User.trim()][0]?.toLocaleUpperCase() ?? "?";
    const row = element("li", { className: grouped ? "message grouped" : "message", "data-id": message.ID });
    const time = element("time", { text: clock.format(posted), datetime: message.PostedAt, title: full.format(posted) });
    if (!grouped) {
      row.append(
        element("span", { className: `avatar ${hue(message.User)}`, text: initial, "aria-hidden": "true" }),
        element("p", { className: "byline" }, element("strong", { text: message.User, dir: "auto" }), time),
      );
    } else {
      row.append(time);
    }
    row.append(element("p", { className: "text", dir: "auto" }, linked(message.Message)));
    target.append(row);
    last = message;
  };

  const appendAll = (messages) => {
    const rows = document.createDocumentFragment();
    for (const message of messages) append(rows, message);
    log.append(rows);
  };

  const redraw = (reset) => {
    const below = scroll.scrollHeight - scroll.scrollTop;
    last = null;
    // Redrawing is not news: a screen reader shall not read a page of history.
    log.setAttribute("aria-live", "off");
    log.replaceChildren();
    appendAll(store.messages);
    requestAnimationFrame(() => log.setAttribute("aria-live", "polite"));
    // What the reader looks at stays where it is when older messages come in above.
    if (!reset && !following) scroll.scrollTop = scroll.scrollHeight - below;
  };

  store.on("messages", ({ reset = false, added = null }) => {
    if (reset && !store.messages.length) following = true;
    if (reset || added === null) redraw(reset);
    else appendAll(added);
    older.hidden = !store.hasOlder;
    empty.hidden = store.messages.length > 0 && !store.problem;
    empty.textContent = store.problem || (store.loading ? "Loading…" : "Nothing here yet. Write the first message.");
    empty.classList.toggle("bad", Boolean(store.problem));
    if (following) toEnd();
    else if (added?.length) newest.hidden = false;
  });

  scroll.addEventListener("scroll", () => {
    following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 40;
    if (following) newest.hidden = true;
    if (scroll.scrollTop < 200 && store.hasOlder && !following) session.loadOlder();
  });
  // A keyboard that opens on a phone, or a composer that grows, must not hide the last message.
  new ResizeObserver(() => following && toEnd()).observe(scroll);
  older.addEventListener("click", () => {
    following = false;
    session.loadOlder();
  });
  newest.addEventListener("click", () => {
    following = true;
    toEnd();
  });
}
