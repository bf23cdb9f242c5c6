// Whether the node serves posts and fresh reads. It is asked only while there is doubt: a page that works asks nothing.

const AGAIN_MS = 2000;

export class Readiness {
  #ask;
  #changed;
  #asking = false;

  // ask(): a promise of true or false, never rejected; changed(ready) hears every answer.
  constructor(ask, changed) {
    this.#ask = ask;
    this.#changed = changed;
  }

  // Something went wrong, or a connection is new: ask until the node says that it is ready.
  async doubt() {
    if (this.#asking) return;
    this.#asking = true;
    while (!(await this.#told())) {
      // Jitter, so that the clients of a cluster without a leader do not all ask at once.
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS * (0.5 + Math.random() / 2)));
    }
    this.#asking = false;
  }

  async #told() {
    const ready = await this.#ask();
    this.#changed(ready);
    return ready;
  }
}
