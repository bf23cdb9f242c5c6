// What the page knows, and who wants to hear when it changes. Does not know the network or the document.

const LOADED_MAX = 2000;

export class Store {
  #listeners = new Map();

  constructor() {
    this.room = "";
    this.rooms = new Map(); // name → { unread }
    this.roomsTruncated = false;
    this.messages = []; // of the current room, by ascending ID
    this.hasOlder = false;
    this.loading = false;
    this.problem = ""; // why the current room cannot be shown
    this.refused = false; // there is and will be no room of this name
    this.connection = "connecting"; // connecting, open, closed
    this.ready = null; // whether the node takes posts; null: not known
    this.user = readUser();
  }

  // Topics: room, rooms, messages, connection, user. Listeners are called at once, in the order they came.
  on(topic, listener) {
    const listeners = this.#listeners.get(topic) ?? [];
    listeners.push(listener);
    this.#listeners.set(topic, listeners);
  }

  #changed(topic, detail) {
    for (const listener of this.#listeners.get(topic) ?? []) listener(detail);
  }

  // connecting, live, waiting (open, but the node cannot post), closed
  get state() {
    if (this.connection !== "open") return this.connection;
    return this.ready === null ? "connecting" : this.ready ? "live" : "waiting";
  }

  setReady(ready) {
    if (ready === this.ready) return;
    this.ready = ready;
    this.#changed("connection");
  }

  setConnection(state) {
    this.connection = state;
    // Whatever is found when it opens again may be another node, or the same in another state.
    if (state === "closed" && this.ready) this.ready = null;
    this.#changed("connection");
  }

  setUser(user) {
    this.user = user;
    try {
      localStorage.setItem("raft-chat.user", user);
    } catch {
      // Storage can be forbidden; the name then lasts as long as the page.
    }
    this.#changed("user");
  }

  setRoom(room) {
    this.room = room;
    this.messages = [];
    this.hasOlder = false;
    this.loading = true;
    this.problem = "";
    this.refused = false;
    const known = this.rooms.get(room);
    if (known) known.unread = 0;
    this.#changed("room");
    this.#changed("rooms");
    this.#changed("messages", { reset: true });
  }

  addRooms(names, truncated = this.roomsTruncated) {
    for (const name of names) if (!this.rooms.has(name)) this.rooms.set(name, { unread: 0 });
    this.roomsTruncated = truncated;
    this.#changed("rooms");
  }

  // The list as it is now. What was known before it was asked for, and is not in all of it, has been removed.
  setRooms(names, truncated, before) {
    const there = new Set(names);
    if (!truncated) for (const name of before) if (!there.has(name)) this.rooms.delete(name);
    this.addRooms(names, truncated);
  }

  noteMessage(room) {
    const known = this.rooms.get(room) ?? { unread: 0 };
    if (room !== this.room) known.unread += 1;
    this.rooms.set(room, known);
    this.#changed("rooms");
  }

  // Messages may come twice, from a page and from the socket, and in any order: an ID is shown once, in its place.
  addMessages(messages, { hasOlder, reset = false } = {}) {
    if (reset) this.messages = [];
    const known = new Set(this.messages.map((message) => message.ID));
    const added = messages.filter((message) => !known.has(message.ID) && known.add(message.ID));
    const appended = !reset && added.every((message) => message.ID > (this.messages.at(-1)?.ID ?? 0));
    this.messages.push(...added);
    if (!appended) this.messages.sort((a, b) => a.ID - b.ID);
    if (appended && this.messages.length > LOADED_MAX) {
      this.messages.splice(0, this.messages.length - LOADED_MAX);
      hasOlder = true;
      reset = true;
    }
    if (hasOlder !== undefined) this.hasOlder = hasOlder;
    this.loading = false;
    this.problem = "";
    this.#changed("messages", { reset, added: appended ? added : null });
  }

  setProblem(text, refused = false) {
    this.loading = false;
    this.problem = text;
    this.refused = refused;
    this.#changed("messages", { added: [] });
    this.#changed("rooms");
  }
}

function readUser() {
  try {
    return localStorage.getItem("raft-chat.user") ?? "";
  } catch {
    return "";
  }
}
