/**
 * Messages that don't stand in the way. Good news leaves by itself, an error stays until it is dismissed.
 *
 * @module
 */

import { button, el, icon } from "./dom.js";

const STAY_MS = 5000;
const AT_MOST = 4;

export class Toasts {
  #polite = el("div", { class: "toast-list", role: "status", "aria-live": "polite" });
  #urgent = el("div", { class: "toast-list", role: "alert", "aria-live": "assertive" });
  #record;

  /** `record(level, message)` also gets every message: the console shows what was said. */
  constructor(root, record) {
    root.append(this.#urgent, this.#polite);
    this.#record = record;
  }

  info(text) {
    this.#record("INFO", text);
    this.#show(this.#polite, "info", text, "");
  }

  success(text) {
    this.#record("INFO", text);
    this.#show(this.#polite, "success", text, "");
  }

  /** Show an error with the service's code; `doing` says what was not done: "The run was not started". */
  error(doing, error) {
    this.#show(this.#urgent, "error", ...this.note(doing, error));
  }

  /** Something could not be read. Without a connection the rail says so, and all is read again when it is back. */
  unread(what, error) {
    if (error?.code === "unreachable") this.note(what, error);
    else this.error(what, error);
  }

  /** Only record an error: it is shown where it belongs. Returns its text and its code. */
  note(doing, error) {
    const code = error?.code ? `${error.code}${error.status ? ` · ${error.status}` : ""}` : "";
    const field = error?.field ? `${error.field}: ` : "";
    const text = `${doing}: ${field}${error?.message ?? error}`;
    this.#record("ERROR", code ? `${text} (${code})` : text);
    return [text, code];
  }

  #show(list, kind, text, code) {
    // The same message again counts up instead of piling up.
    for (const shown of list.children) {
      if (shown.dataset.text === text) {
        const times = Number(shown.dataset.times ?? 1) + 1;
        shown.dataset.times = times;
        shown.querySelector(".toast-times").textContent = `×${times}`;
        return;
      }
    }
    const toast = el(
      "div",
      { class: `toast ${kind}`, data: { text } },
      icon({ info: "info", success: "check", error: "error" }[kind]),
      el(
        "p",
        { class: "toast-text" },
        el("span", { text }),
        code && el("code", { class: "toast-code", text: code }),
        el("span", { class: "toast-times" }),
      ),
    );
    const dismiss = button("Dismiss", { kind: "bare icon-only", icon: "close", on: { click: () => toast.remove() } });
    toast.append(dismiss);
    list.append(toast);
    while (list.children.length > AT_MOST) list.firstElementChild.remove();
    if (kind !== "error") {
      let timer = setTimeout(() => toast.remove(), STAY_MS);
      toast.addEventListener("pointerenter", () => clearTimeout(timer));
      toast.addEventListener("pointerleave", () => {
        timer = setTimeout(() => toast.remove(), STAY_MS);
      });
    }
  }
}
