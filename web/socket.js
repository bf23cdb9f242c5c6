// The stream of messages over a WebSocket that comes back by itself. Does not know rooms or the page.

const DELAY_MIN_MS = 500;
const DELAY_MAX_MS = 10000;
const SILENCE_MAX_MS = 60000; // the server sends a heartbeat every 25 s

export class Socket {
  #url;
  #handlers;
  #socket = null;
  #failures = 0;
  #retry = 0;
  #watchdog = 0;

  constructor(base, handlers) {
    this.#url = new URL("ws", base);
    this.#url.protocol = this.#url.protocol === "https:" ? "wss:" : "ws:";
    this.#handlers = handlers;
  }

  start() {
    addEventListener("online", () => this.#now());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#now());
    this.#connect();
  }

  // Do not wait out the delay when there is a reason to believe that it works now.
  #now() {
    if (this.#socket === null) {
      clearTimeout(this.#retry);
      this.#connect();
    }
  }

  #connect() {
    const socket = (this.#socket = new WebSocket(this.#url));
    this.#handlers.onState("connecting");
    this.#listen(socket);
    socket.addEventListener("open", () => {
      this.#failures = 0;
      this.#handlers.onState("open");
      this.#handlers.onOpen();
    });
    socket.addEventListener("message", (event) => {
      this.#listen(socket);
      const frame = JSON.parse(event.data);
      if (frame.Post) this.#handlers.onMessage(frame.RoomName, frame.Post);
    });
    socket.addEventListener("close", () => this.#lost(socket));
  }

  // A connection whose other end is gone without a word looks open: silence is the only sign.
  #listen(socket) {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => {
      socket.close();
      this.#lost(socket);
    }, SILENCE_MAX_MS);
  }

  #lost(socket) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    clearTimeout(this.#watchdog);
    const ceiling = Math.min(DELAY_MAX_MS, DELAY_MIN_MS * 2 ** this.#failures++);
    this.#handlers.onState("closed");
    // Jitter, so that all clients of a node that went away do not come back at once.
    this.#retry = setTimeout(() => this.#connect(), ceiling * (0.5 + Math.random() / 2));
  }
}
