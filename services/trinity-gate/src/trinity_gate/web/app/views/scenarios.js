/**
 * Scenarios: the list, and an editor whose draft is nothing but a draft until it is saved.
 *
 * @module
 */

import { openDialog } from "../dialog.js";
import { button, el, icon, replace, set, setText } from "../dom.js";
import { failAt, field, listOf, numberOf, refill, select, toggle } from "../fields.js";
import { count } from "../format.js";
import { governanceFacts } from "../governancefacts.js";
import { askBeforeLeaving } from "../guard.js";
import { Topology } from "../topology.js";

const NONE = "";
const CUSTOM = "custom"; // what the service calls a governance that is no preset; it can be kept, not chosen

/** What of a scenario is edited: where it lies in the detail, and how field and value go into each other. */
const PARTS = [
  { name: "name", path: ["name"] },
  { name: "description", path: ["description"] },
  { name: "tags", path: ["tags"], read: listOf, write: (list) => list.join(", ") },
  { name: "pillars", path: ["pillars"], read: listOf, write: (list) => list.join(", ") },
  { name: "runtime_hint", path: ["runtime_hint"] },
  {
    name: "ticks_total",
    path: ["core_params", "ticks_total"],
    read: (text) => numberOf(text.replaceAll(/[\s,_]/g, "")),
    write: String,
  },
  { name: "primary_window_id", path: ["core_params", "primary_window_id"] },
  { name: "metrics_enabled", path: ["core_params", "metrics_enabled"], flag: true },
  { name: "logging_enabled", path: ["core_params", "logging_enabled"], flag: true },
  { name: "enable_codex", path: ["core_params", "enable_codex"], flag: true },
  { name: "enable_pfna", path: ["core_params", "enable_pfna"], flag: true },
  {
    name: "governance_preset",
    path: ["governance_preset"],
    read: (text) => text || null,
    write: (value) => value ?? NONE,
  },
];

const at = (object, path) => path.reduce((value, key) => value?.[key], object);

export class Scenarios {
  #ctx;
  #detail = null;
  #presets = [];
  #fields;
  #asked = 0;
  #activating = false;
  #search = el(
    "input",
    { type: "search", placeholder: "Find a scenario", "aria-label": "Find a scenario", autocomplete: "off" },
  );
  #list = el("ul", { class: "pick-list", "aria-label": "Scenarios" });
  #title = el("h2", { class: "card-title" });
  #badges = el("span", { class: "badges" });
  #problem = el("div", { class: "banner-slot" });
  #failure = el("div", { class: "form-error", role: "alert" });
  #changes = el("p", { class: "changes", role: "status" });
  #notYours = el("p", { class: "hint", text: "An overseer may change this.", hidden: true });
  #fieldset = el("fieldset", { class: "form-grid plain" });
  #advanced = el("div", { class: "advanced" });
  #topology = new Topology();
  #save = button("Save", { icon: "save", kind: "primary" });
  #discard = button("Discard", { kind: "danger-quiet" });
  #saveAs = button("Save as…", { icon: "clone" });
  #activate = button("Set active", { icon: "flag" });
  #editor;
  #empty = el("p", { class: "empty", text: "Choose a scenario." });

  constructor(ctx) {
    this.#ctx = ctx;
    this.#fields = {
      name: field("Name", el("input", { type: "text", maxlength: "120", autocomplete: "off" })),
      runtime_hint: field("Runtime hint", el("input", { type: "text", maxlength: "40", autocomplete: "off" })),
      description: field("Description", el("textarea", { rows: "2", maxlength: "2000" }), { wide: true }),
      tags: field("Tags", el("input", { type: "text", autocomplete: "off" }), { hint: "separated by commas" }),
      pillars: field("Pillars", el("input", { type: "text", autocomplete: "off" }), { hint: "separated by commas" }),
      ticks_total: field("Ticks", el("input", { type: "text", inputmode: "numeric", autocomplete: "off" })),
      primary_window_id: field("Primary window", select([])),
      governance_preset: field("Governance", select([]), { hint: "of this scenario's own, over the service's base" }),
      metrics_enabled: toggle("Metrics"),
      logging_enabled: toggle("Logging"),
      enable_codex: toggle("Codex"),
      enable_pfna: toggle("PFNA", { hint: "inputs from outside" }),
    };
    const switches = ["metrics_enabled", "logging_enabled", "enable_codex", "enable_pfna"];
    this.#fieldset.append(
      ...Object.entries(this.#fields)
        .filter(([name]) => !switches.includes(name))
        .map(([, { element }]) => element),
      el(
        "div",
        { class: "switches", role: "group", "aria-label": "Switches" },
        ...switches.map((name) => this.#fields[name].element)
      ),
    );
    const form = el(
      "form",
      {
        class: "scenario-form",
        novalidate: true,
        on: {
          submit: (event) => (event.preventDefault(), this.#saveDraft()),
          input: () => this.#drafted(),
          change: () => this.#drafted(),
        },
      },
      this.#fieldset,
      this.#failure,
    );
    this.#editor = el(
      "section",
      { class: "card editor", "aria-label": "Scenario", hidden: true },
      el(
        "header",
        { class: "card-head" },
        this.#title,
        this.#badges,
        el("span", { class: "spring" }),
        this.#saveAs,
        this.#activate,
      ),
      this.#problem,
      form,
      el("footer", { class: "editor-foot" }, this.#notYours, this.#changes, el("span", { class: "spring" }), this.#discard, this.#save),
      this.#advanced,
    );
    this.element = el(
      "div",
      { class: "split" },
      el("h1", { class: "sr", text: "Scenario and config" }),
      el(
        "section",
        { class: "card side", "aria-label": "All scenarios" },
        el("div", { class: "search" }, icon("search"), this.#search),
        this.#list,
      ),
      el("div", { class: "split-main" }, this.#editor, this.#empty),
    );
    this.#search.addEventListener("input", () => this.#drawList());
    this.#save.addEventListener("click", () => this.#saveDraft());
    this.#discard.addEventListener("click", () => this.#discardDraft());
    this.#saveAs.addEventListener("click", () => this.#cloneDraft());
    this.#activate.addEventListener("click", () => this.#setActive());
    const { store } = ctx.surface;
    store.watch(["scenarios", "scenario"], () => {
      this.#drawList();
      this.#drawHead();
    });
    store.watch(["who"], () => this.#drawRights());
    ctx.surface.on("scenarios", () => this.#refresh());
    ctx.surface.on("governance", () => this.#refresh());
  }

  async show(id) {
    const { store } = this.#ctx.surface;
    const wanted = id || this.#detail?.id || store.get("scenario")?.id || store.get("scenarios")[0]?.id;
    if (wanted && wanted !== this.#detail?.id) await this.#open(wanted);
    else if (wanted) this.#ctx.router.note(wanted);
  }

  isDirty() {
    return this.#detail !== null && Object.keys(this.#patch()).length > 0;
  }

  /** Asked by the router before this tab is left, and before another scenario is opened. */
  async guard() {
    return askBeforeLeaving({
      what: `The scenario ${this.#detail.id}`,
      save: () => this.#saveDraft(),
      discard: () => this.#fill(this.#detail),
    });
  }

  /** Asked before this scenario is started or made active: what runs is what is saved. True when there is no draft left. */
  async settled(id) {
    return id !== this.#detail?.id || !this.isDirty() || this.guard();
  }

  async #setActive() {
    const { surface } = this.#ctx;
    const id = this.#detail?.id;
    if (!id || this.#activating || !surface.may("operator")) return;
    this.#activating = true;
    this.#drawRights();
    try {
      if (await this.settled(id)) await surface.activate(id);
    } finally {
      this.#activating = false;
      this.#drawRights();
    }
  }

  async #open(id) {
    this.#asked += 1;
    const turn = this.#asked;
    const { api, toasts, router } = this.#ctx;
    try {
      if (this.#presets.length === 0) this.#presets = await api.governancePresets();
      const detail = await api.scenario(id);
      if (turn !== this.#asked) return; // another one was chosen meanwhile
      this.#fill(detail);
      if (router.current === "scenarios") router.note(id);
    } catch (error) {
      if (turn !== this.#asked) return;
      toasts.error(`The scenario ${id} could not be opened`, error);
      // The address says what is shown, and choosing the same one again tries again.
      if (router.current === "scenarios") router.note(this.#detail?.id ?? "");
    }
  }

  /** Somebody changed scenarios or governance: show what holds now, unless there is a draft. */
  async #refresh() {
    if (!this.#detail || this.isDirty() || this.#save.getAttribute("aria-busy") === "true") return;
    this.#asked += 1;
    const turn = this.#asked;
    try {
      const detail = await this.#ctx.api.scenario(this.#detail.id);
      if (turn === this.#asked && !this.isDirty()) this.#fill(detail);
    } catch {
      /* it is shown as it was; opening it again says what is wrong */
    }
  }

  #fill(detail) {
    this.#detail = detail;
    const known = detail.core_params !== null;
    refill(
      this.#fields.primary_window_id.input,
      (detail.advanced?.windows ?? []).map(({ window_id }) => [window_id, window_id]),
    );
    const presets = [[NONE, "None: the service's base"], ...this.#presets.map(({ id, name }) => [id, name])];
    if (detail.governance_preset === CUSTOM) presets.push([CUSTOM, "Custom (as in its file)"]);
    refill(this.#fields.governance_preset.input, presets);
    for (const { name, path, flag, write = (value) => value ?? "" } of PARTS) {
      const { input, fail } = this.#fields[name];
      const value = at(detail, path);
      input.disabled = path[0] === "core_params" && !known;
      if (flag) input.checked = Boolean(value);
      else input.value = value === undefined ? "" : write(value);
      fail("");
    }
    replace(this.#failure);
    replace(
      this.#problem,
      detail.problem && el(
        "div",
        { class: "banner", data: { kind: "error" } },
        icon("error"),
        el(
          "div",
          { class: "banner-text" },
          el("strong", { text: "This scenario can't be started" }),
          el("span", { text: detail.problem }),
        ),
      ),
    );
    this.#editor.hidden = false;
    this.#empty.hidden = true;
    this.#drawAdvanced();
    this.#drawHead();
    this.#drawList();
    this.#drafted();
  }

  /** What the draft changes, as a `ScenarioPatch`. */
  #patch() {
    const patch = {};
    for (const { name, path, flag, read = (text) => text } of PARTS) {
      const { input } = this.#fields[name];
      if (input.disabled) continue;
      const before = at(this.#detail, path);
      const after = flag ? input.checked : read(input.value);
      if (JSON.stringify(before) === JSON.stringify(after)) continue;
      if (path.length === 1) patch[path[0]] = after;
      else (patch[path[0]] ??= {})[path[1]] = after;
    }
    return patch;
  }

  #drafted() {
    if (!this.#detail) return;
    const patch = this.#patch();
    const names = Object.keys({ ...patch, ...patch.core_params }).filter((name) => name !== "core_params");
    const dirty = names.length > 0;
    // "Saved" stays until the next edit.
    if (dirty || this.#editor.dataset.dirty === "true" || this.#changes.dataset.of !== this.#detail.id) {
      setText(this.#changes, dirty ? `Not saved: ${names.map((name) => name.replaceAll("_", " ")).join(", ")}` : "");
    }
    this.#changes.dataset.of = this.#detail.id;
    this.#editor.dataset.dirty = String(dirty);
    const may = this.#ctx.surface.may("overseer");
    this.#notYours.hidden = may;
    const busy = this.#save.getAttribute("aria-busy") === "true";
    this.#save.disabled = !dirty || !may || busy;
    this.#discard.disabled = !dirty || busy;
    this.#ctx.router?.mark("scenarios", dirty ? "not saved" : "");
    for (const mark of this.#list.querySelectorAll(".draft-mark")) {
      mark.hidden = !(dirty && mark.closest("li").dataset.id === this.#detail.id);
    }
  }

  async #saveDraft() {
    const patch = this.#patch();
    if (this.#save.disabled || Object.keys(patch).length === 0) return !this.isDirty();
    replace(this.#failure);
    this.#busy(true);
    try {
      const detail = await this.#ctx.api.saveScenario(this.#detail.id, { ...patch, revision: this.#detail.revision });
      this.#asked += 1;
      this.#fill(detail);
      setText(this.#changes, "Saved");
      this.#ctx.own.record("INFO", `${detail.id} is saved`);
      return true;
    } catch (error) {
      this.#refused(error);
      return false;
    } finally {
      this.#busy(false);
    }
  }

  #busy(on) {
    this.#save.setAttribute("aria-busy", String(on));
    this.#fieldset.disabled = on || !this.#ctx.surface.may("overseer");
    this.#drafted();
  }

  #refused(error) {
    this.#fieldset.disabled = false;
    this.#ctx.toasts.note(`${this.#detail.id} was not saved`, error);
    if (failAt(this.#fields, error)) return;
    const again = error.code === "revision_mismatch" && button(
      "Discard mine and read again",
      { kind: "danger-quiet", on: { click: () => this.#open(this.#detail.id) } },
    );
    replace(this.#failure, el("span", { text: `${error.message} (${error.code})` }), again);
  }

  async #discardDraft() {
    const answer = await openDialog({
      title: "Discard the changes?",
      kind: "warning",
      body: [el("p", { text: `${this.#detail.id} stays as it was saved last.` })],
      actions: [
        { name: "keep", label: "Keep editing" },
        { name: "discard", label: "Discard changes", kind: "danger" },
      ],
    });
    if (answer === "discard") this.#fill(this.#detail);
  }

  /** "Save as": a new scenario with what is in the form; the one it came from stays as it is. */
  async #cloneDraft() {
    if (!this.#detail || !this.#ctx.surface.may("overseer")) return;
    const id = field(
      "Id",
      el("input", { type: "text", autocomplete: "off", maxlength: "64", spellcheck: "false" }),
      { hint: "letters, digits, dot, underscore, hyphen; at most 64" },
    );
    const name = field("Name", el("input", { type: "text", autocomplete: "off", maxlength: "120" }));
    id.input.value = `${this.#detail.id}-copy`.slice(0, 64);
    name.input.value = this.#fields.name.input.value === this.#detail.id ? "" : this.#fields.name.input.value;
    const failure = el("p", { class: "form-error", role: "alert" });
    const changes = this.#patch();
    delete changes.name;
    const dirty = Object.keys(changes).length > 0;
    let made = null;
    await openDialog({
      title: `Save ${this.#detail.id} as`,
      body: [
        el("div", { class: "form-grid" }, id.element, name.element),
        dirty && el("p", { class: "hint", text: "What is not saved goes into the copy only." }),
        failure,
      ],
      actions: [
        { name: "cancel", label: "Cancel" },
        { name: "save", label: "Save as", icon: "clone", kind: "primary", submit: true },
      ],
      focus: id.input,
      onSubmit: async () => {
        setText(failure, "");
        const request = { id: id.input.value.trim() };
        if (name.input.value.trim()) request.name = name.input.value.trim();
        if (dirty) request.changes = changes;
        try {
          made = await this.#ctx.api.clone(this.#detail.id, request);
          return true;
        } catch (error) {
          const fields = { ...this.#fields, id, name };
          if (error.code === "scenario_exists") id.fail(error.message);
          else if (!(error.field ?? "").startsWith("changes") && failAt({ id, name }, error)) return false;
          else {
            setText(failure, `${error.field ? `${error.field}: ` : ""}${error.message} (${error.code})`);
            failAt(fields, error);
          }
          return false;
        }
      },
    });
    if (!made) return;
    this.#asked += 1;
    await this.#ctx.surface.reloadScenarios();
    this.#fill(made);
    this.#ctx.router.note(made.id);
    this.#ctx.toasts.success(`${made.id} is saved`);
  }

  #drawHead() {
    if (!this.#detail) return;
    const active = this.#ctx.surface.store.get("scenario")?.id === this.#detail.id;
    setText(this.#title, this.#detail.id);
    replace(
      this.#badges,
      active && el("span", { class: "tag active", text: "Active" }),
      el("span", { class: "tag", text: this.#detail.shipped ? "Shipped" : "Edited here" }),
    );
    this.#activate.hidden = active;
    this.#drawRights();
  }

  #drawRights() {
    const { surface } = this.#ctx;
    this.#activate.disabled = !surface.may("operator") || this.#activating;
    const may = surface.may("overseer");
    this.#fieldset.disabled = !may;
    this.#save.hidden = this.#discard.hidden = this.#saveAs.hidden = !may;
    this.#drafted();
  }

  #drawList() {
    const { store } = this.#ctx.surface;
    const wanted = this.#search.value.trim().toLowerCase();
    const active = store.get("scenario")?.id;
    const found = store.get("scenarios").filter(({ id, name, description, tags }) => {
      return [id, name, description, ...tags].some((text) => text.toLowerCase().includes(wanted));
    });
    const focused = this.#list.contains(document.activeElement) && document.activeElement.closest("li").dataset.id;
    const dirty = this.isDirty();
    replace(
      this.#list,
      found.map(({ id, name, description, runtime_hint: hint, problem }) =>
        el(
          "li",
          { data: { id } },
          el(
            "button",
            {
              type: "button",
              class: "pick",
              "aria-current": id === this.#detail?.id ? "true" : null,
              on: { click: () => this.#pick(id) },
            },
            el(
              "span",
              { class: "pick-title" },
              el("span", { text: name }),
              problem && icon("warn", "bad"),
              el(
                "span",
                { class: "draft-mark", text: "●", title: "not saved", hidden: !(dirty && id === this.#detail?.id) },
              ),
              id === active && el("span", { class: "tag active", text: "Active" }),
            ),
            el(
              "span",
              { class: "pick-note", text: [name === id ? null : id, hint].filter(Boolean).join(" · ") || "\u00a0" },
            ),
            el("span", { class: "pick-text", text: description }),
          ),
        ),
      ),
    );
    if (found.length === 0) this.#list.append(el("li", { class: "empty", text: "Nothing found." }));
    if (focused) [...this.#list.children].find((item) => item.dataset.id === focused)?.firstElementChild.focus();
  }

  async #pick(id) {
    // On a phone the editor lies below the list.
    if ((
      await this.#ctx.router.go("scenarios", id)
    ) && matchMedia("(max-width: 760px)").matches) this.#editor.scrollIntoView({ block: "start" });
  }

  #drawAdvanced() {
    const { advanced, run_config_id: config } = this.#detail;
    if (!advanced) {
      replace(this.#advanced);
      return;
    }
    this.#topology.show(advanced.topology);
    const rows = advanced.windows.map(({ window_id, apx_name, start_tick, end_tick, streams }) => el(
      "tr",
      {},
      el("td", { text: window_id }),
      el("td", { text: apx_name }),
      el("td", { class: "number", text: `${count(start_tick)} – ${count(end_tick)}` }),
      el("td", { text: streams.join(", ") || "the two defaults" }),
    ));
    const open = this.#advanced.querySelector("details")?.open ?? false;
    const facts = [
      ["Run config", config],
      ["Graph", advanced.gid],
      ["Profile", advanced.profile],
      ["PFNA entries", count(advanced.pfna_entries)],
    ];
    replace(
      this.#advanced,
      el(
        "details",
        { open },
        el("summary", { text: "Expert view" }),
        el(
          "dl",
          { class: "facts" },
          ...facts.map(([label, value]) => el("div", {}, el("dt", { text: label }), el("dd", { text: value })))
        ),
        el("h3", { text: "Windows" }),
        el(
          "div",
          { class: "scroll" },
          el(
            "table",
            {},
            el(
              "thead",
              {},
              el(
                "tr",
                {},
                ...["Window", "APX name", "Ticks", "Streams"].map((text) => el("th", { scope: "col", text }))
              ),
            ),
            el("tbody", {}, ...rows),
          ),
        ),
        el("h3", { text: "Governance of its next run" }),
        governanceFacts(advanced.governance),
        el("h3", { text: "Topology" }),
        this.#topology.element,
      ),
    );
  }
}
