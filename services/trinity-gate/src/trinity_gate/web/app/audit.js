/** The service's audit, for overseers: every write, who made it, and what came of it. @module */

import { button, el, icon, replace } from "./dom.js";
import { moment } from "./format.js";

const PAGE = 50;
const AT_MOST = 1000; // entries that the service gives at once
const BRIEF = 60; // characters of a detail that need no opening

/** What came of a write: never colour alone. */
function outcome(result) {
  const [kind, picture, text, title] = result === "ok"
    ? ["completed", "check", "ok", ""]
    : result === null
      ? ["", "unknown", "unknown", "The service ended before it was known"]
      : ["fault", "error", result, ""];
  return el("span", { class: "result", data: { result: kind }, title: title || null }, icon(picture), text);
}

/** `{"paused": true, "overrides": {"ticks_total": 40}}` → `paused: true, overrides: {ticks_total: 40}`. */
function brief(detail) {
  return JSON.stringify(detail, null, 1)
    .slice(1, -1)
    .replaceAll(/\n\s*/g, " ")
    .replaceAll(/"([\w.]+)":/g, "$1:")
    .trim();
}

export class Audit {
  #ctx;
  #entries = [];
  #cursor = null;
  #visible = false;
  #turn = 0;
  #drawn = "";
  #body = el("tbody");
  #failure = el("div", { class: "form-error", role: "alert" });
  #empty = el("p", { class: "empty", text: "Nothing was written yet.", hidden: true });
  #more = button("Older entries", { kind: "quiet", hidden: true, on: { click: () => this.#load(this.#cursor) } });

  constructor(ctx) {
    this.#ctx = ctx;
    const heads = ["When", "Who", "What", "Of", "Result", "With"];
    const again = button("Read again", { kind: "bare small", icon: "reset", on: { click: () => this.#load() } });
    this.element = el(
      "section",
      { class: "card audit", "aria-label": "Audit", hidden: true },
      el(
        "header",
        { class: "card-head" },
        el("h2", { class: "card-title", text: "Audit" }),
        el("span", { class: "view-note", text: "every write, newest first" }),
        el("span", { class: "spring" }),
        again,
      ),
      this.#failure,
      el(
        "table",
        { class: "audit-table" },
        el("caption", { class: "sr", text: "Every write, newest first" }),
        el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col", text })))),
        this.#body,
      ),
      this.#empty,
      el("div", { class: "more" }, this.#more),
    );
    const { surface } = ctx;
    let phase = surface.phase;
    surface.store.watch(["who"], () => {
      this.element.hidden = !surface.may("overseer");
      this.#follow();
    });
    surface.store.watch(["run"], () => {
      // Not at every tick.
      if (surface.phase !== phase) this.#follow();
      phase = surface.phase;
    });
    for (const topic of ["scenarios", "governance", "history"]) surface.on(topic, () => this.#follow());
  }

  show() {
    this.#visible = true;
    this.#follow();
  }

  hide() {
    this.#visible = false;
  }

  #follow() {
    if (this.#visible && this.#ctx.surface.may("overseer")) this.#load();
  }

  async #load(cursor = null) {
    this.#turn += 1;
    const turn = this.#turn;
    this.#more.disabled = true;
    try {
      // Reading again keeps as much as was shown.
      const limit = cursor ? PAGE : Math.min(AT_MOST, Math.max(PAGE, this.#entries.length));
      const page = await this.#ctx.api.audit({ limit, cursor });
      if (turn !== this.#turn) return;
      this.#entries = cursor ? [...this.#entries, ...page.entries] : page.entries;
      this.#cursor = page.cursor;
      replace(this.#failure);
      this.#draw();
    } catch (error) {
      if (turn === this.#turn) replace(this.#failure, `The audit could not be read: ${error.message} (${error.code})`);
    } finally {
      if (turn === this.#turn) this.#more.disabled = false;
    }
  }

  #draw() {
    this.#more.hidden = this.#cursor === null;
    this.#empty.hidden = this.#entries.length > 0;
    const drawn = JSON.stringify(this.#entries);
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    const open = new Set([...this.#body.querySelectorAll("details[open]")].map((node) => node.closest("tr").dataset.id));
    const focused = this.#body.contains(document.activeElement) && document.activeElement.closest("tr").dataset.id;
    replace(
      this.#body,
      this.#entries.map(({ id, at, actor, role, action, target, detail, result }) => el(
        "tr",
        { data: { id } },
        el("td", { class: "when", text: moment(at) }),
        el("td", { class: "who-did" }, actor, actor !== role && el("span", { class: "hint", text: ` ${role}` })),
        el("td", { class: "action mono", text: action }),
        el("td", { class: "target mono", text: target }),
        el("td", { class: "outcome" }, outcome(result)),
        el("td", { class: "with" }, this.#detail(detail, open.has(String(id)))),
      )),
    );
    if (focused) this.#body.querySelector(`tr[data-id="${focused}"] summary`)?.focus();
  }

  #detail(detail, open) {
    if (Object.keys(detail).length === 0) return null;
    const text = brief(detail);
    if (text.length <= BRIEF) return el("span", { class: "mono", text });
    return el(
      "details",
      { open },
      el("summary", { class: "mono", text: `${text.slice(0, BRIEF)}…` }),
      el("pre", { class: "payload", text: JSON.stringify(detail, null, 2) }),
    );
  }
}
