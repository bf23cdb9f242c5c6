// The list of rooms: find, create, open. Knows names and unread counts, not messages.

import { element } from "./element.js";

const SHOWN_MAX = 300;
const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

export function mountRooms(store, session, find) {
  const list = find("rooms");
  const note = find("rooms-note");
  const input = find("find-name");
  const items = new Map();
  let scheduled = false;
  let search = 0;

  const item = (name) => {
    let entry = items.get(name);
    if (!entry) {
      const label = element("span", { className: "name", text: name, dir: "auto" });
      const unread = element("span", { className: "unread" });
      const link = element("a", { href: `#${encodeURIComponent(name)}` }, label, unread);
      entry = { row: element("li", {}, link), link, unread };
      items.set(name, entry);
    }
    const count = store.rooms.get(name)?.unread ?? 0;
    entry.unread.textContent = count > 99 ? "99+" : count ? String(count) : "";
    if (count) entry.unread.setAttribute("aria-label", `${count} unread`);
    else entry.unread.removeAttribute("aria-label");
    if (name === store.room) entry.link.setAttribute("aria-current", "page");
    else entry.link.removeAttribute("aria-current");
    return entry.row;
  };

  const render = () => {
    scheduled = false;
    const wanted = input.value.trim().toLocaleLowerCase();
    const names = new Set(store.rooms.keys());
    if (store.room && !store.refused) names.add(store.room);
    for (const name of items.keys()) if (!names.has(name)) items.delete(name);
    const found = [...names].filter((name) => name.toLocaleLowerCase().includes(wanted)).sort(collator.compare);
    list.replaceChildren(...found.slice(0, SHOWN_MAX).map(item));
    const more = found.length > SHOWN_MAX || (store.roomsTruncated && !wanted);
    note.hidden = !more && (found.length > 0 || !wanted);
    note.textContent = more ? "There are more rooms: type to find them." : "No such room yet: Open creates it.";
  };

  // Many messages may arrive before the next frame is drawn; the list is drawn once.
  const renderSoon = () => {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(render);
  };
  store.on("rooms", renderSoon);
  store.on("room", renderSoon);
  input.addEventListener("input", () => {
    render();
    clearTimeout(search);
    search = setTimeout(() => session.findRooms(input.value.trim()), 200);
  });
  find("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (!name) return;
    input.value = "";
    render();
    location.hash = encodeURIComponent(name);
    find("message").focus();
  });
  render();
}
