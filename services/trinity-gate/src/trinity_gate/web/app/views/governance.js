/**
 * The service's base governance. Nothing is applied until Save; what is refused is said and blocks nothing.
 *
 * @module
 */

import { Audit } from "../audit.js";
import { button, el, replace, set, setText } from "../dom.js";
import { openDialog } from "../dialog.js";
import { failAt, field, numberOf } from "../fields.js";
import { count, words } from "../format.js";
import { KNOBS } from "../governancefacts.js";
import { askBeforeLeaving } from "../guard.js";

const MODES = [
  ["OFF", "Off", "Nothing is checked and Codex does not run."],
  ["OBSERVE", "Observe", "Everything is checked and recorded, nothing is applied."],
  ["DRY_RUN", "Dry run", "Decisions are made as if they counted, and recorded as hypothetical."],
  ["ENFORCE", "Enforce", "Decisions count: what is accepted is recorded as an action."],
];

const HINTS = {
  max_actions_per_window: "accepted proposals in the primary window",
  max_proposals_per_window: "proposals looked at in the primary window",
  max_topology_changes: "edges that accepted proposals may touch",
};

export class Governance {
  #ctx;
  #base = null;
  #draft = null;
  #presets = [];
  #modes = new Map();
  #knobs = {};
  #hash = el("code", { class: "hash" });
  #presetList = el("div", { class: "preset-list" });
  #failure = el("div", { class: "form-error", role: "alert" });
  #changes = el("div", { class: "changes", role: "status" });
  #fieldset = el("fieldset", { class: "plain", disabled: true }); // until there is something to edit
  #save = button("Save", { icon: "save", kind: "primary" });
  #discard = button("Discard", { kind: "danger-quiet" });
  #card;
  #audit;
  #saving = false;
  #saved = false;

  constructor(ctx) {
    this.#ctx = ctx;
    this.#audit = new Audit(ctx);
    const radios = MODES.map(([mode, label, text]) => {
      const input = el(
        "input",
        { type: "radio", name: "mode", value: mode, on: { change: () => this.#change({ mode }) } },
      );
      this.#modes.set(mode, input);
      return el(
        "label",
        { class: "choice" },
        input,
        el("span", { class: "choice-text" }, el("strong", { text: label }), el("span", { text })),
      );
    });
    const budgets = KNOBS.map((name) => {
      const knob = field(
        words(name),
        el("input", { type: "text", inputmode: "numeric", autocomplete: "off" }),
        { hint: HINTS[name] },
      );
      const unlimited = el("input", { type: "checkbox", "aria-label": `${words(name)}: no limit` });
      knob.element.append(el("label", { class: "check" }, unlimited, "No limit"));
      knob.input.addEventListener(
        "input",
        () => this.#change({ [name]: numberOf(knob.input.value.replaceAll(/[\s,_]/g, "")) }),
      );
      unlimited.addEventListener(
        "change",
        () => this.#change({ [name]: unlimited.checked ? null : (this.#base.budget_knobs[name] ?? 0) }, true),
      );
      this.#knobs[name] = { ...knob, unlimited };
      return knob.element;
    });
    const copy = button(
      "Copy the hash",
      { kind: "bare icon-only", icon: "copy", title: "Copy the hash", on: { click: () => this.#copy() } },
    );
    this.#fieldset.append(
      el(
        "section",
        {},
        el("h3", { text: "Presets" }),
        el("p", { class: "hint", text: "A preset only fills in this form." }),
        this.#presetList,
      ),
      el(
        "section",
        {},
        el("h3", { id: "mode-label", text: "Mode" }),
        el("div", { class: "choices", role: "radiogroup", "aria-labelledby": "mode-label" }, ...radios),
      ),
      el("section", {}, el("h3", { text: "Budgets" }), el("div", { class: "form-grid three" }, ...budgets)),
    );
    this.#card = el(
      "section",
      { class: "card editor", "aria-label": "Base governance" },
      el(
        "header",
        { class: "card-head" },
        el("h2", { class: "card-title", text: "Base of the service" }),
        el("span", { class: "spring" }),
        el("span", { class: "hash-line" }, el("span", { class: "chip-label", text: "Policy set" }), this.#hash, copy),
      ),
      el(
        "form",
        { novalidate: true, on: { submit: (event) => (event.preventDefault(), this.#saveDraft()) } },
        this.#fieldset,
        this.#failure,
      ),
      el("footer", { class: "editor-foot" }, this.#changes, el("span", { class: "spring" }), this.#discard, this.#save),
    );
    this.element = el(
      "div",
      { class: "governance-view" },
      el(
        "header",
        { class: "view-head" },
        el("h1", { text: "Governance & budgets" }),
        el(
          "p",
          {
            class: "view-note",
            text: "Reaches runs that are started after saving. A scenario's own governance goes over this base, a run's options over both.",
          },
        ),
      ),
      this.#card,
      this.#audit.element,
    );
    this.#save.disabled = this.#discard.disabled = true;
    this.#save.addEventListener("click", () => this.#saveDraft());
    this.#discard.addEventListener("click", () => this.#discardDraft());
    ctx.surface.store.watch(["who"], () => this.#draw());
    ctx.surface.on("governance", () => this.#refresh());
  }

  show() {
    this.#refresh();
    this.#audit.show();
  }

  hide() {
    this.#audit.hide();
  }

  isDirty() {
    return this.#base !== null && Object.keys(this.#patch()).length > 0;
  }

  guard() {
    return askBeforeLeaving({
      what: "The governance",
      save: () => this.#saveDraft(),
      discard: () => this.#take(this.#base),
    });
  }

  async #refresh() {
    if (this.#saving || this.isDirty()) return;
    try {
      const [base, presets] = await Promise.all([this.#ctx.api.governance(), this.#ctx.api.governancePresets()]);
      if (this.isDirty()) return;
      this.#presets = presets;
      replace(
        this.#presetList,
        presets.map((preset) => el(
          "button",
          {
            type: "button",
            class: "preset",
            title: preset.description,
            data: { preset: preset.id },
            on: { click: () => this.#usePreset(preset) },
          },
          el("strong", { text: preset.name }),
          el("span", { text: preset.description }),
        )),
      );
      this.#take(base);
    } catch (error) {
      this.#ctx.toasts.note("The governance could not be read", error);
      // What was read before stays in view; without that there is nothing to edit.
      replace(
        this.#failure,
        el("span", { text: `The governance could not be read: ${error.message} (${error.code})` }),
        button("Try again", { kind: "quiet small", on: { click: () => this.#refresh() } }),
      );
    }
  }

  #take(base) {
    this.#base = base;
    this.#draft = {
      mode: base.mode,
      ...Object.fromEntries(KNOBS.map((name) => [name, base.budget_knobs[name] ?? null]))
    };
    for (const { fail } of Object.values(this.#knobs)) fail("");
    replace(this.#failure);
    this.#draw(true);
  }

  #change(change, fill = false) {
    Object.assign(this.#draft, change);
    this.#draw(fill);
  }

  #usePreset(preset) {
    this.#change({ mode: preset.mode, ...preset.budget_knobs }, true);
  }

  /** What the draft changes, as a `GovernancePatch`. */
  #patch() {
    const patch = {};
    if (this.#draft.mode !== this.#base.mode) patch.mode = this.#draft.mode;
    const knobs = {};
    for (const name of KNOBS) if (
      this.#draft[name] !== (this.#base.budget_knobs[name] ?? null)
    ) knobs[name] = this.#draft[name];
    if (Object.keys(knobs).length) patch.budget_knobs = knobs;
    return patch;
  }

  #draw(fill = false) {
    if (!this.#base) return;
    const may = this.#ctx.surface.may("overseer");
    const patch = this.#patch();
    const dirty = Object.keys(patch).length > 0;
    for (const [mode, input] of this.#modes) input.checked = mode === this.#draft.mode;
    for (const [name, { input, unlimited }] of Object.entries(this.#knobs)) {
      const value = this.#draft[name];
      unlimited.checked = value === null;
      input.disabled = value === null;
      if (fill) input.value = value === null ? "" : String(value);
    }
    setText(this.#hash, `${this.#base.policy_set_hash.slice(0, 16)}…`);
    set(this.#hash, { title: this.#base.policy_set_hash });
    const limit = (value) => (
      value === null ? "no limit" : typeof value === "number" ? count(value) : value === "" ? "(empty)" : value
    );
    const lines = [];
    if ("mode" in patch) lines.push(["Mode", this.#base.mode, patch.mode]);
    for (const [name, value] of Object.entries(patch.budget_knobs ?? {})) lines.push([
      words(name),
      limit(this.#base.budget_knobs[name] ?? null),
      limit(value),
    ]);
    if (dirty) this.#saved = false;
    replace(
      this.#changes,
      !may && el("span", { class: "hint", text: "An overseer may change this." }),
      this.#saved && "Saved: it reaches the runs that are started from now on",
      lines.map(([name, before, after]) => el(
        "span",
        { class: "change" },
        `${name}: `,
        el("del", { text: before }),
        " → ",
        el("ins", { text: after }),
      )),
    );
    this.#card.dataset.dirty = String(dirty);
    this.#fieldset.disabled = !may || this.#saving;
    this.#save.disabled = !dirty || !may || this.#saving;
    this.#discard.disabled = !dirty || this.#saving;
    this.#save.hidden = this.#discard.hidden = !may;
    this.#save.setAttribute("aria-busy", String(this.#saving));
    this.#ctx.router?.mark("governance", dirty ? "not saved" : "");
  }

  async #saveDraft() {
    const patch = this.#patch();
    if (this.#save.disabled || Object.keys(patch).length === 0) return !this.isDirty();
    replace(this.#failure);
    this.#saving = true;
    this.#draw();
    let refused = null;
    try {
      const base = await this.#ctx.api.saveGovernance({ ...patch, policy_set_hash: this.#base.policy_set_hash });
      this.#take(base);
      this.#saved = true;
      this.#ctx.own.record("INFO", "The governance is saved");
    } catch (error) {
      refused = error;
    }
    this.#saving = false;
    this.#draw();
    if (!refused) return true;
    if (!failAt(this.#knobs, refused)) {
      const again = refused.status === 409 && button(
        "Discard mine and read again",
        { kind: "danger-quiet", on: { click: () => (this.#take(this.#base), this.#refresh()) } },
      );
      replace(this.#failure, el("span", { text: `${refused.message} (${refused.code})` }), again);
    }
    this.#ctx.toasts.note("The governance was not saved", refused);
    return false;
  }

  async #discardDraft() {
    const answer = await openDialog({
      title: "Discard the changes?",
      kind: "warning",
      body: [el("p", { text: "The governance stays as it was saved last." })],
      actions: [
        { name: "keep", label: "Keep editing" },
        { name: "discard", label: "Discard changes", kind: "danger" },
      ],
    });
    if (answer === "discard") this.#take(this.#base);
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.#base.policy_set_hash);
      this.#ctx.toasts.info("The hash is copied");
    } catch (error) {
      this.#ctx.toasts.error("The hash was not copied", error);
    }
  }
}
