// The REST interface. Knows paths and problems (RFC 9457). Does not know the page.

const TIMEOUT_MS = 15000;
const READY_TIMEOUT_MS = 5000;

// What the server's words, written for whoever runs it, mean to somebody who chats.
const WORDS = {
  no_leader: "The cluster is choosing a new leader, or too few of its nodes are up.",
  not_committed: "The cluster changed its leader, and your message was not posted.",
  outcome_unknown: "It is not known whether your message was posted. Wait for it to appear before sending it again.",
  overloaded: "The cluster is busy.",
  not_ready: "This node is not ready yet.",
  not_applied: "This node is still catching up.",
  shutting_down: "This node is shutting down.",
  disk_full: "The cluster has no space left for messages.",
};

export class Problem extends Error {
  // code: the server's, "" if the answer is not from it or there is none.
  constructor(message, { status = 0, code = "", retryable = false } = {}) {
    super(WORDS[code] ?? message);
    this.status = status;
    this.code = code;
    this.retryable = retryable;
  }

  // Not for now, and certainly nothing was done: the same request may succeed in a moment.
  get passing() {
    return this.status === 503 && this.code !== "" && this.retryable;
  }
}

export class Api {
  #base;

  constructor(base) {
    this.#base = base;
  }

  // { messages, hasOlder, hasNewer }; cursor: {}, { before: ID } or { after: ID }, and how fresh: { consistency: "local" }.
  async messages(room, cursor = {}, limit = 50) {
    const response = await this.#request(this.#room(room), { limit, ...cursor });
    const link = response.headers.get("Link") ?? "";
    return {
      messages: await response.json(),
      hasOlder: link.includes('rel="prev"'),
      hasNewer: link.includes('rel="next"'),
    };
  }

  // { names, truncated }
  async rooms(prefix = "", freshness = {}) {
    const response = await this.#request("rooms", { ...(prefix ? { prefix, limit: 100 } : {}), ...freshness });
    return { names: await response.json(), truncated: response.headers.has("Link") };
  }

  // { ID, PostedAt }
  async post(room, user, text) {
    const body = JSON.stringify({ Message: text, User: user });
    return (await this.#request(this.#room(room), {}, { method: "POST", body })).json();
  }

  // Never throws.
  async ready() {
    try {
      await this.#request("readyz", {}, {}, READY_TIMEOUT_MS);
      return true;
    } catch {
      return false;
    }
  }

  #room(name) {
    return `rooms/${encodeURIComponent(name)}`;
  }

  async #request(path, parameters, options = {}, timeout = TIMEOUT_MS) {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    let response;
    try {
      response = await fetch(url, { ...options, signal: AbortSignal.timeout(timeout) });
    } catch (error) {
      const late = error.name === "TimeoutError";
      throw new Problem(late ? "The server did not answer in time." : "The server cannot be reached.", { retryable: true });
    }
    if (response.ok) return response;
    let problem = {};
    try {
      problem = await response.json();
    } catch {
      // Not ours: a proxy's, perhaps.
    }
    throw new Problem(problem.detail ?? `The server answered ${response.status}.`, { ...problem, status: response.status });
  }
}
