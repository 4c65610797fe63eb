/**
 * A WebSocket that comes back: after a loss it waits (0.25 s, doubling to 5 s, with some chance in it, so that
 * many pages don't come at once), tells what it is doing, and is asked anew where to go on.
 *
 * @module
 */

const FIRST_WAIT_MS = 250;
const LONGEST_WAIT_MS = 5_000;
const SILENCE_MS = 15_000;

export class Stream {
  #target;
  #onMessage;
  #onStatus;
  #onClose;
  #probe;
  #socket = null;
  #wait = FIRST_WAIT_MS;
  #timer = null;
  #watch = null;
  #closed = false;

  /**
   * `target()` gives `{url, protocols}` each time it connects; `onMessage(value)` gets each message;
   * `onStatus("connecting" | "live" | "waiting", {retryAt, code})` each change. `onClose(code)` may answer
   * "stop" (not again) or "now" (without waiting). `probe()` tells, after a silence, whether the service is
   * still there: a connection can be dead without anybody having said so.
   */
  constructor({ target, onMessage, onStatus = () => {}, onClose = () => "later", probe = async () => true }) {
    this.#target = target;
    this.#onMessage = onMessage;
    this.#onStatus = onStatus;
    this.#onClose = onClose;
    this.#probe = probe;
    addEventListener("online", this.retry);
    document.addEventListener("visibilitychange", this.#visible);
    this.#connect();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    removeEventListener("online", this.retry);
    document.removeEventListener("visibilitychange", this.#visible);
    const socket = this.#socket;
    this.#socket = null;
    // One that is about to open is closed then: a browser complains otherwise.
    if (socket?.readyState === WebSocket.CONNECTING) socket.addEventListener("open", () => socket.close(1000));
    else socket?.close(1000);
  }

  /** Don't wait any longer. */
  retry = () => {
    if (this.#closed || this.#socket) return;
    clearTimeout(this.#timer);
    this.#connect();
  };

  #visible = () => {
    if (document.visibilityState === "visible") this.retry();
  };

  #connect() {
    const { url, protocols } = this.#target();
    this.#onStatus("connecting", {});
    const socket = new WebSocket(url, protocols);
    this.#socket = socket;
    this.#heard(socket);
    socket.addEventListener("open", () => {
      if (socket !== this.#socket) return;
      this.#wait = FIRST_WAIT_MS;
      this.#heard(socket);
      this.#onStatus("live", {});
    });
    socket.addEventListener("message", (event) => {
      if (socket !== this.#socket) return;
      this.#heard(socket);
      this.#onMessage(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => this.#lost(socket, event.code));
  }

  #heard(socket) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(async () => {
      const there = socket.readyState === WebSocket.OPEN && (await this.#probe());
      if (socket !== this.#socket) return;
      if (there) {
        this.#heard(socket);
        return;
      }
      socket.close();
      this.#lost(socket, 1006);
    }, SILENCE_MS);
  }

  #lost(socket, code) {
    if (this.#closed || socket !== this.#socket) return;
    this.#socket = null;
    clearTimeout(this.#watch);
    const next = this.#onClose(code);
    if (next === "stop") {
      this.close();
      return;
    }
    const wait = next === "now" ? 0 : this.#wait * (0.75 + Math.random() / 2);
    if (next !== "now") this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
    this.#timer = setTimeout(() => this.#connect(), wait);
    this.#onStatus("waiting", { retryAt: Date.now() + wait, code });
  }
}
