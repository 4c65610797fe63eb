/**
 * Single-key shortcuts. They sleep while something is typed or a dialog is open, and can be switched off
 * (WCAG 2.1.4).
 *
 * @module
 */

import { el } from "./dom.js";
import { openDialog } from "./dialog.js";
import { preferences } from "./remembered.js";

export class Shortcuts {
  #entries = [];

  constructor() {
    addEventListener("keydown", (event) => this.#key(event));
  }

  get enabled() {
    return preferences.get("shortcuts", "on") === "on";
  }

  /** `key` as `KeyboardEvent.key`; `action()` is called when it is pressed. */
  add(key, description, action) {
    this.#entries.push({ key, description, action });
  }

  #key(event) {
    if (!this.enabled || event.defaultPrevented || event.repeat) return;
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const target = event.target;
    if (target instanceof Element && target.closest("input, textarea, select, dialog, [contenteditable]")) return;
    const entry = this.#entries.find(({ key }) => key === event.key);
    if (!entry) return;
    event.preventDefault();
    entry.action();
  }

  /** The list of them, and the switch. */
  async help() {
    const on = el(
      "input",
      {
        type: "checkbox",
        checked: this.enabled,
        on: { change: (event) => preferences.set("shortcuts", event.target.checked ? "on" : "off") },
      },
    );
    await openDialog({
      title: "Keyboard",
      body: [
        el(
          "dl",
          { class: "keys" },
          ...this.#entries.map(({ key, description }) => el(
            "div",
            {},
            el("dt", {}, el("kbd", { text: key })),
            el("dd", { text: description }),
          )),
          el(
            "div",
            {},
            el("dt", {}, el("kbd", { text: "↑" }), el("kbd", { text: "↓" })),
            el("dd", { text: "Move between tabs, and between lines of a list" }),
          ),
          el(
            "div",
            {},
            el("dt", {}, el("kbd", { text: "Esc" })),
            el("dd", { text: "Close a dialog without doing anything" }),
          ),
        ),
        el("label", { class: "check" }, on, "Single-key shortcuts"),
      ],
      actions: [{ name: "close", label: "Close" }],
    });
  }
}
