// What the user and the server do to the store: open a room, receive, post, catch up. Does not know the document.

const PAGE = 50;
const CATCH_UP_PAGES_MAX = 10;
const RETRY_MS = 2000;

export class Session {
  #store;
  #api;
  #retry = 0;

  constructor(store, api) {
    this.#store = store;
    this.#api = api;
  }

  async open(room) {
    if (room === this.#store.room) return;
    this.#store.setRoom(room);
    await this.#load();
  }

  // The socket is open (again). It was opened first, so what is fetched now and what it brings overlap: no gap.
  async resync() {
    this.loadRooms();
    const last = this.#store.messages.at(-1)?.ID;
    if (last === undefined) await this.#load();
    else await this.#catchUp(last);
  }

  receive(room, message) {
    this.#store.noteMessage(room);
    // While the first page is loading, what it brings will hold this message too, or come after it.
    if (room === this.#store.room) this.#store.addMessages([message]);
  }

  async loadOlder() {
    const { room, messages, loading } = this.#store;
    if (loading || !messages.length) return;
    this.#store.loading = true;
    try {
      const page = await this.#api.messages(room, { before: messages[0].ID }, PAGE);
      if (room === this.#store.room) this.#store.addMessages(page.messages, { hasOlder: page.hasOlder });
    } catch (problem) {
      if (room === this.#store.room) this.#store.setProblem(problem.message);
    }
  }

  async findRooms(prefix) {
    if (!this.#store.roomsTruncated) return;
    try {
      this.#store.addRooms((await this.#api.rooms(prefix)).names);
    } catch {
      // The list stays as it is; the connection's state tells that something is wrong.
    }
  }

  // Throws api.Problem.
  async post(text) {
    const { room, user } = this.#store;
    const posted = await this.#api.post(room, user, text);
    const message = { ...posted, User: user, Message: text };
    this.#store.addRooms([room]);
    if (room === this.#store.room) this.#store.addMessages([message]);
  }

  async #load() {
    const room = this.#store.room;
    clearTimeout(this.#retry);
    try {
      const page = await this.#api.messages(room, {}, PAGE);
      if (room === this.#store.room) this.#store.addMessages(page.messages, { hasOlder: page.hasOlder });
    } catch (problem) {
      if (room !== this.#store.room) return;
      this.#store.setProblem(problem.message);
      if (problem.retryable) this.#retry = setTimeout(() => this.#load(), RETRY_MS);
    }
  }

  async #catchUp(last) {
    const room = this.#store.room;
    try {
      for (let pages = 0; pages < CATCH_UP_PAGES_MAX; pages++) {
        const page = await this.#api.messages(room, { after: last }, 100);
        if (room !== this.#store.room) return;
        this.#store.addMessages(page.messages);
        if (!page.hasNewer) return;
        last = page.messages.at(-1).ID;
      }
      // Too far behind to fill the gap: begin again with the newest.
      const page = await this.#api.messages(room, {}, PAGE);
      if (room === this.#store.room) this.#store.addMessages(page.messages, { hasOlder: page.hasOlder, reset: true });
    } catch (problem) {
      if (room !== this.#store.room) return;
      if (problem.retryable) this.#retry = setTimeout(() => room === this.#store.room && this.#catchUp(last), RETRY_MS);
      else this.#store.setProblem(problem.message);
    }
  }

  // At start, and again whenever the socket opens: what came into being meanwhile was not told.
  async loadRooms() {
    try {
      const { names, truncated } = await this.#api.rooms();
      this.#store.addRooms(names, truncated);
    } catch {
      setTimeout(() => this.#store.connection === "open" && this.loadRooms(), RETRY_MS);
    }
  }
}
