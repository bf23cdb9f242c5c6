// The frame of the page: title, connection, and the list of rooms as a drawer where there is little width.

const STATES = {
  live: "Live",
  waiting: "Read-only: waiting for the cluster",
  connecting: "Connecting…",
  closed: "Offline, trying again…",
};

export function mountShell(store, find) {
  const side = find("side");
  const shade = find("shade");
  const menu = find("menu");

  const drawer = (open) => {
    side.classList.toggle("open", open);
    shade.hidden = !open;
    menu.setAttribute("aria-expanded", String(open));
    if (open) find("find-name").focus();
  };
  menu.addEventListener("click", () => drawer(!side.classList.contains("open")));
  shade.addEventListener("click", () => drawer(false));
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && side.classList.contains("open")) {
      drawer(false);
      menu.focus();
    }
  });

  store.on("room", () => {
    find("title").textContent = store.room;
    document.title = `${store.room} · raft-chat`;
    drawer(false);
  });
  const showState = () => {
    find("state").textContent = STATES[store.state];
    find("state").dataset.state = store.state;
  };
  store.on("connection", showState);
  showState();
}
