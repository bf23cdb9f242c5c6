// What the user and the server do to the store: open a room, receive, post, catch up. Does not know the document.

const PAGE = 50;
const CATCH_UP_PAGES_MAX = 10;
const RETRY_MS = 2000;
const POST_RETRY_MIN_MS = 250;
const POST_RETRY_MAX_MS = 2000;
const POST_PATIENCE_MS = 15000; // longer than an election takes, shorter than a person waits
const LOCAL = { consistency: "local" };

export class Session {
  #store;
  #api;
  #doubt;
  #retry = 0;

  // doubt(): called when a request failed in a way that says something about the node.
  constructor(store, api, doubt) {
    this.#store = store;
    this.#api = api;
    this.#doubt = doubt;
  }

  setReady(ready) {
    const before = this.#store.ready;
    this.#store.setReady(ready);
    // What was read before is what this node alone knew.
    if (ready && !before) this.resync();
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
      const page = await this.#messages(room, { before: messages[0].ID }, PAGE);
      if (room === this.#store.room) this.#store.addMessages(page.messages, { hasOlder: page.hasOlder });
    } catch (problem) {
      if (room === this.#store.room) this.#store.setProblem(problem.message);
    }
  }

  async findRooms(prefix) {
    if (!this.#store.roomsTruncated) return;
    try {
      this.#store.addRooms((await this.#read((freshness) => this.#api.rooms(prefix, freshness))).names);
    } catch {
      // The list stays as it is; the connection's state tells that something is wrong.
    }
  }

  // A failure that passes is tried again for a while; waiting(why) is told each time. Throws api.Problem.
  async post(text, waiting) {
    const { room, user } = this.#store;
    const posted = await this.#insist(() => this.#api.post(room, user, text), waiting);
    const message = { ...posted, User: user, Message: text };
    this.#store.addRooms([room]);
    if (room === this.#store.room) this.#store.addMessages([message]);
  }

  async #insist(post, waiting) {
    const end = Date.now() + POST_PATIENCE_MS;
    for (let delay = POST_RETRY_MIN_MS; ; delay = Math.min(2 * delay, POST_RETRY_MAX_MS)) {
      try {
        return await post();
      } catch (problem) {
        if (problem.status === 0 || problem.status >= 500) this.#doubt();
        if (!problem.passing || Date.now() + delay > end) throw problem;
        waiting(problem.message);
      }
      await new Promise((resolve) => setTimeout(resolve, delay * (0.5 + Math.random() / 2)));
    }
  }

  // call(freshness): as fresh as can be had. A node that may have no leader is asked for what it has, so that nobody waits.
  async #read(call) {
    if (!this.#store.ready) return call(LOCAL);
    try {
      return await call({});
    } catch (problem) {
      if (problem.status === 0 || problem.status >= 500) this.#doubt();
      if (!problem.passing) throw problem;
      return call(LOCAL);
    }
  }

  #messages(room, cursor, limit) {
    return this.#read((freshness) => this.#api.messages(room, { ...cursor, ...freshness }, limit));
  }

  async #load() {
    const room = this.#store.room;
    clearTimeout(this.#retry);
    try {
      const page = await this.#messages(room, {}, PAGE);
      if (room === this.#store.room) this.#store.addMessages(page.messages, { hasOlder: page.hasOlder });
    } catch (problem) {
      if (room !== this.#store.room) return;
      this.#store.setProblem(problem.message, problem.status === 400 || problem.status === 422);
      if (problem.retryable) this.#retry = setTimeout(() => this.#load(), RETRY_MS);
    }
  }

  async #catchUp(last) {
    const room = this.#store.room;
    try {
      for (let pages = 0; pages < CATCH_UP_PAGES_MAX; pages++) {
        const page = await this.#messages(room, { after: last }, 100);
        if (room !== this.#store.room) return;
        this.#store.addMessages(page.messages);
        if (!page.hasNewer) return;
        last = page.messages.at(-1).ID;
      }
      // Too far behind to fill the gap: begin again with the newest.
      const page = await this.#messages(room, {}, PAGE);
      if (room === this.#store.room) this.#store.addMessages(page.messages, { hasOlder: page.hasOlder, reset: true });
    } catch (problem) {
      if (room !== this.#store.room) return;
      if (problem.retryable) this.#retry = setTimeout(() => room === this.#store.room && this.#catchUp(last), RETRY_MS);
      else this.#store.setProblem(problem.message);
    }
  }

  // At start, and again whenever the socket opens: what came into being or went meanwhile was not told.
  async loadRooms() {
    const before = [...this.#store.rooms.keys()];
    try {
      const { names, truncated } = await this.#read((freshness) => this.#api.rooms("", freshness));
      this.#store.setRooms(names, truncated, before);
    } catch {
      setTimeout(() => this.#store.connection === "open" && this.loadRooms(), RETRY_MS);
    }
  }
}
