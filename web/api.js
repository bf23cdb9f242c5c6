// The REST interface. Knows paths and problems (RFC 9457). Does not know the page.

const TIMEOUT_MS = 15000;

export class Problem extends Error {
  constructor(message, { code = "", retryable = false } = {}) {
    super(message);
    this.code = code;
    this.retryable = retryable;
  }
}

export class Api {
  #base;

  constructor(base) {
    this.#base = base;
  }

  // { messages, hasOlder, hasNewer }; cursor: {}, { before: ID } or { after: ID }.
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
  async rooms(prefix = "") {
    const response = await this.#request("rooms", prefix ? { prefix, limit: 100 } : {});
    return { names: await response.json(), truncated: response.headers.has("Link") };
  }

  // { ID, PostedAt }
  async post(room, user, text) {
    const body = JSON.stringify({ Message: text, User: user });
    return (await this.#request(this.#room(room), {}, { method: "POST", body })).json();
  }

  #room(name) {
    return `rooms/${encodeURIComponent(name)}`;
  }

  async #request(path, parameters, options = {}) {
    const url = new URL(path, this.#base);
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
    let response;
    try {
      response = await fetch(url, { ...options, signal: AbortSignal.timeout(TIMEOUT_MS) });
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
    throw new Problem(problem.detail ?? `The server answered ${response.status}.`, problem);
  }
}
