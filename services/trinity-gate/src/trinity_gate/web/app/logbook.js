/**
 * The entries the page has: per run as the service sends them, and what the page itself has to say.
 *
 * @module
 */

import { Stream } from "./stream.js";

export const OWN = "surface"; // the "run" of the page's own messages
const KEPT = 250_000; // entries per run

/** Follows one run's log: from the start, then live, and once more from the start when the complete log takes its place. */
export class RunLog {
  entries = [];
  complete = false;
  #api;
  #run;
  #stream = null;
  #listeners;
  #replacing = false;
  #read = 0; // how often it was read to its end

  /** `changed({added} | {reset: true})` hears of new entries and of a new beginning, `status(word)` of the connection. */
  constructor(api, run, { changed, status }) {
    this.#api = api;
    this.#run = run;
    this.#listeners = { changed, status };
  }

  get cursor() {
    return this.#replacing ? null : (this.entries.at(-1)?.cursor ?? null);
  }

  /** Begin, or go on where it was left. */
  open() {
    if (this.#stream || this.complete) return;
    this.#stream = new Stream({
      target: () => this.#api.logSocket(this.#run, this.cursor),
      onMessage: (message) => this.#take(Array.isArray(message) ? message : [message]),
      onStatus: (status) => this.#listeners.status(status),
      onClose: (code) => {
        if (code === 4000 || (code === 1000 && this.#gaps && this.#read === 0)) {
          // The complete log is there. What is shown stays until the first of it has come.
          this.#read += code === 1000 ? 1 : 0;
          this.#replacing = true;
          return "now";
        }
        if (code === 1000 || code === 4404) {
          this.complete = true;
          this.#stream = null;
          this.#listeners.status(code === 1000 ? "complete" : "missing");
          return "stop";
        }
        return "later";
      },
      probe: this.#api.healthy,
    });
  }

  close() {
    this.#stream?.close();
    this.#stream = null;
  }

  /** Whether entries are missing that were never heard: they are numbered. */
  get #gaps() {
    const [first, last] = [this.entries[0], this.entries.at(-1)];
    return first !== undefined && (
      last.index - first.index + 1 !== this.entries.length || (first.index > 0 && this.entries.length < KEPT)
    );
  }

  #take(entries) {
    if (this.#replacing) {
      this.#replacing = false;
      this.entries = [];
      this.#listeners.changed({ reset: true });
    }
    for (const entry of entries) this.entries.push(entry);
    if (this.entries.length > KEPT * 1.1) this.entries.splice(0, this.entries.length - KEPT);
    this.#listeners.changed({ added: entries });
  }
}

/** The page's own messages: commands, errors, the connection. */
export class OwnLog {
  entries = [];
  #listener = () => {};

  record(level, message, event = "page") {
    const entry = { timestamp: new Date().toISOString(), level, event_type: event, run_id: OWN, message };
    this.entries.push(entry);
    if (this.entries.length > 2_000) this.entries.splice(0, 1_000);
    this.#listener(entry);
  }

  listen(listener) {
    this.#listener = listener;
  }
}
