/**
 * Tabs with a place in the address: `#/history/<run id>`. The tab list follows the ARIA pattern (one stop for
 * Tab, arrows, Home and End within); leaving asks the view first when it holds unsaved work.
 *
 * @module
 */

import { el, icon } from "./dom.js";

export class Router {
  #views = new Map();
  #tabs = new Map();
  #panels = new Map();
  #current = null;
  #argument = "";
  #shownHash = "";
  #leaving = false;
  #tablist;

  /** `views`: `{name, label, short, icon, view}`; a view has `element`, `show(argument)`, `hide()`, and may have `guard()`. */
  constructor(rail, main, views) {
    this.#tablist = el("div", { class: "tabs", role: "tablist", "aria-label": "Trinity Gate" });
    for (const [position, { name, label, short, icon: picture, view }] of views.entries()) {
      const tab = el(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${name}`,
          class: "tab",
          "aria-controls": `panel-${name}`,
          "aria-selected": "false",
          "aria-keyshortcuts": String(position + 1),
          tabindex: "-1",
          on: { click: () => this.go(name) },
        },
        icon(picture),
        el("span", { class: "tab-label", text: label }),
        el("span", { class: "tab-short", text: short, "aria-hidden": "true" }),
        el("kbd", { class: "tab-key", text: String(position + 1), "aria-hidden": "true" }),
        el("span", { class: "tab-mark", hidden: true }),
      );
      const panel = el(
        "section",
        {
          role: "tabpanel",
          id: `panel-${name}`,
          class: `panel panel-${name}`,
          "aria-labelledby": `tab-${name}`,
          hidden: true,
        },
        view.element,
      );
      this.#views.set(name, view);
      this.#tabs.set(name, tab);
      this.#panels.set(name, panel);
      this.#tablist.append(tab);
      main.append(panel);
    }
    this.#tablist.addEventListener("keydown", (event) => this.#key(event));
    rail.prepend(this.#tablist);
    const horizontal = matchMedia("(max-width: 899px)");
    const orient = () => this.#tablist.setAttribute("aria-orientation", horizontal.matches ? "horizontal" : "vertical");
    horizontal.addEventListener("change", orient);
    orient();
    addEventListener("hashchange", () => this.#follow());
    addEventListener("beforeunload", (event) => {
      if (this.#views.get(this.#current)?.isDirty?.()) event.preventDefault();
    });
  }

  get current() {
    return this.#current;
  }

  get names() {
    return [...this.#views.keys()];
  }

  /** Open what the address says, or the first tab. */
  start() {
    return this.#follow();
  }

  /** Show a tab; false when the operator chose to stay. */
  async go(name, argument = "") {
    const hash = `#/${name}${argument ? `/${encodeURIComponent(argument)}` : ""}`;
    if (name === this.#current && argument === this.#argument) return true;
    if (!(await this.#mayLeave(name, argument))) return false;
    if (location.hash !== hash) history.pushState(null, "", hash);
    this.#show(name, argument, hash);
    return true;
  }

  /** The same tab with another argument, without asking and without a new entry in the browser's history. */
  note(argument) {
    this.#argument = argument;
    this.#shownHash = `#/${this.#current}${argument ? `/${encodeURIComponent(argument)}` : ""}`;
    history.replaceState(null, "", this.#shownHash);
  }

  /** A dot beside the tab's name: something there is not saved. */
  mark(name, text) {
    const mark = this.#tabs.get(name).querySelector(".tab-mark");
    mark.hidden = !text;
    mark.textContent = text;
  }

  focusTab(name) {
    this.#tabs.get(name).focus();
  }

  async #follow() {
    const { name, argument } = this.#parse(location.hash);
    const hash = location.hash;
    if (name === this.#current && argument === this.#argument) return;
    if (this.#leaving || !(await this.#mayLeave(name, argument))) {
      history.replaceState(null, "", this.#shownHash);
      return;
    }
    this.#show(name, argument, hash);
  }

  #parse(hash) {
    const [name = "", ...rest] = hash.replace(/^#\/?/, "").split("/");
    let argument = rest.join("/");
    try {
      argument = decodeURIComponent(argument);
    } catch {
      argument = ""; // a broken escape in a typed address
    }
    return this.#views.has(name) ? { name, argument } : { name: this.#views.keys().next().value, argument: "" };
  }

  async #mayLeave(name, argument) {
    const view = this.#views.get(this.#current);
    if (!view?.isDirty?.()) return true;
    if (this.#leaving) return false;
    this.#leaving = true;
    try {
      return await view.guard(name === this.#current ? argument : null);
    } finally {
      this.#leaving = false;
    }
  }

  #show(name, argument, hash) {
    if (this.#current !== name) {
      const focusInTabs = this.#tablist.contains(document.activeElement);
      if (this.#current) {
        this.#views.get(this.#current).hide?.();
        this.#panels.get(this.#current).hidden = true;
        this.#tabs.get(this.#current).setAttribute("aria-selected", "false");
        this.#tabs.get(this.#current).tabIndex = -1;
      }
      this.#current = name;
      this.#panels.get(name).hidden = false;
      const tab = this.#tabs.get(name);
      tab.setAttribute("aria-selected", "true");
      tab.tabIndex = 0;
      if (focusInTabs) tab.focus();
      document.querySelector("#main").scrollTop = 0;
    }
    this.#argument = argument;
    this.#shownHash = hash;
    this.#views.get(name).show(argument);
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const names = this.names;
    const at = names.indexOf(this.#current);
    const next = {
      ArrowDown: at + 1,
      ArrowRight: at + 1,
      ArrowUp: at - 1,
      ArrowLeft: at - 1,
      Home: 0,
      End: names.length - 1,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.go(names[(next + names.length) % names.length]).then((moved) => moved && this.focusTab(this.#current));
  }
}
