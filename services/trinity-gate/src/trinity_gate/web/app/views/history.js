/**
 * Past runs: a list with filters that grows by cursor, a run's details, two runs compared, export.
 *
 * @module
 */

import { button, el, icon, replace, setText } from "../dom.js";
import { refill, select } from "../fields.js";
import { between, brief, bytes, count, duration, moment, words } from "../format.js";
import { governanceFacts } from "../governancefacts.js";

const PAGE = 50;
const RESULTS = [
  ["", "All results"],
  ["completed", "Completed"],
  ["cancelled", "Cancelled"],
  ["fault", "Fault"],
];
const PICTURES = { completed: "check", cancelled: "cancelled", fault: "error", running: "running" };

/** A run's result with its picture: never colour alone. */
function resultTag(result) {
  return el("span", { class: "result", data: { result } }, icon(PICTURES[result] ?? "unknown"), result);
}

export class History {
  #ctx;
  #entries = [];
  #cursor = null;
  #comparing = false;
  #chosen = new Set();
  #open = "";
  #visible = false;
  #turn = 0;
  #shown = ""; // the details in view, as they came
  #scenario = select([["", "All scenarios"]], { "aria-label": "Scenario" });
  #result = select(RESULTS, { "aria-label": "Result" });
  #body = el("tbody");
  #more = button("Older runs", { kind: "quiet" });
  #compare = button("Compare", { icon: "compare" });
  #empty = el("div", { class: "empty", hidden: true });
  #side = el("section", { class: "card detail", "aria-label": "Run", tabindex: "-1" });

  constructor(ctx) {
    this.#ctx = ctx;
    const heads = ["", "Started", "Scenario", "Result", "Ticks", "Duration", "Run"];
    const table = el(
      "table",
      { class: "history-table" },
      el("caption", { class: "sr", text: "Past runs, newest first" }),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          ...heads.map((text) => el(
            "th",
            { scope: "col", class: text === "Ticks" || text === "Duration" ? "number" : "" },
            text || el("span", { class: "sr", text: "Compare" }),
          ))
        ),
      ),
      this.#body,
    );
    this.element = el(
      "div",
      { class: "split wide-side" },
      el("h1", { class: "sr", text: "History and exports" }),
      el(
        "section",
        { class: "card side", "aria-label": "Past runs" },
        el("div", { class: "toolbar" }, this.#scenario, this.#result, el("span", { class: "spring" }), this.#compare),
        el("div", { class: "scroll" }, table),
        this.#empty,
        el("div", { class: "more" }, this.#more),
      ),
      el("div", { class: "split-main" }, this.#side),
    );
    this.#scenario.addEventListener("change", () => this.#load());
    this.#result.addEventListener("change", () => this.#load());
    this.#more.addEventListener("click", () => this.#load(this.#cursor));
    this.#compare.addEventListener("click", () => this.#showComparison());
    this.#more.hidden = true;
    const { store } = ctx.surface;
    store.watch(["scenarios"], () => this.#fillScenarios());
    store.watch(["run"], () => {
      // The run that is looked at may have ended.
      const run = store.get("run");
      if (this.#visible && run?.run_id === this.#open && run.phase === "ended") this.#showRun(run.run_id);
    });
    const refresh = () => {
      if (!this.#visible) return;
      this.#load();
      if (this.#open) this.#showRun(this.#open, { again: true }); // results come in after the end
    };
    ctx.surface.on("history", refresh);
    ctx.surface.on("logs", refresh);
    this.#drawSide();
    this.#drawCompare();
  }

  show(run) {
    this.#visible = true;
    this.#load();
    if (run) this.#showRun(run).then(() => this.#reveal());
    else if (this.#open) this.#ctx.router.note(this.#open);
  }

  hide() {
    this.#visible = false;
  }

  #fillScenarios() {
    // Runs of scenarios that are gone can still be asked for.
    const ids = new Set([
      ...this.#ctx.surface.store.get("scenarios").map(({ id }) => id),
      ...this.#entries.map(({ scenario_id: id }) => id)
    ]);
    refill(this.#scenario, [["", "All scenarios"], ...[...ids].sort().map((id) => [id, id])]);
  }

  async #load(cursor = null) {
    this.#turn += 1;
    const turn = this.#turn;
    this.#more.disabled = true;
    try {
      // Reading again keeps as much as was shown.
      const limit = cursor ? PAGE : Math.min(200, Math.max(PAGE, this.#entries.length));
      const page = await this.#ctx.api.history({
        limit,
        cursor,
        scenario: this.#scenario.value,
        result: this.#result.value,
      });
      if (turn !== this.#turn) return;
      this.#entries = cursor ? [...this.#entries, ...page.entries] : page.entries;
      this.#cursor = page.cursor;
      this.#fillScenarios();
      this.#drawRows();
    } catch (error) {
      if (turn !== this.#turn) return;
      if (this.#entries.length) {
        this.#ctx.toasts.unread("The history could not be read", error);
        return;
      }
      this.#ctx.toasts.note("The history could not be read", error);
      replace(
        this.#empty,
        el("p", { role: "alert", text: `The history could not be read: ${error.message} (${error.code})` }),
        button("Try again", { kind: "quiet", on: { click: () => this.#load() } }),
      );
      this.#empty.hidden = false;
    } finally {
      this.#more.disabled = false;
    }
  }

  #drawRows() {
    const focused = document.activeElement?.closest("tr")?.dataset.run;
    const part = document.activeElement?.tagName;
    for (const id of this.#chosen) if (!this.#entries.some(({ run_id }) => run_id === id)) this.#chosen.delete(id);
    replace(
      this.#body,
      this.#entries.map((entry) => {
        const {
          run_id: id,
          scenario_id: scenario,
          started_at: start,
          ended_at: end,
          result,
          ticks_total: ticks,
        } = entry;
        const box = el(
          "input",
          {
            type: "checkbox",
            checked: this.#chosen.has(id),
            "aria-label": `Compare ${id}`,
            on: { change: () => this.#choose(id, box) },
          },
        );
        return el(
          "tr",
          {
            data: { run: id },
            "aria-current": id === this.#open ? "true" : null,
            on: { click: (event) => event.target.closest("label, button") || this.#pick(id) },
          },
          el("td", {}, el("label", { class: "hit" }, box)),
          el("td", { class: "when", text: moment(start) }),
          el("td", { class: "what", text: scenario }),
          el("td", {}, resultTag(result)),
          el("td", { class: "number", text: count(ticks) }),
          el("td", { class: "number", text: duration(between(start, end)) }),
          el(
            "td",
            { class: "id" },
            el(
              "button",
              {
                type: "button",
                class: "link",
                text: brief(id),
                "aria-label": id,
                title: id,
                on: { click: () => this.#pick(id) },
              },
            ),
          ),
        );
      }),
    );
    const row = focused && [...this.#body.children].find(({ dataset }) => dataset.run === focused);
    if (row) row.querySelector(part === "INPUT" ? "input" : "button").focus();
    const filtered = this.#scenario.value || this.#result.value;
    replace(this.#empty, el("p", { text: filtered ? "No run matches." : "No runs yet." }));
    this.#empty.hidden = this.#entries.length > 0;
    this.#more.hidden = this.#cursor === null;
    this.#drawCompare();
  }

  async #pick(id) {
    const shown = id === this.#open;
    await this.#ctx.router.go("history", id);
    if (shown) this.#reveal();
  }

  /** Where there is no room beside the list the details lie below it. */
  #reveal() {
    if (matchMedia("(max-width: 1150px)").matches) this.#side.scrollIntoView({ block: "start" });
  }

  #choose(id, box) {
    if (box.checked) this.#chosen.add(id);
    else this.#chosen.delete(id);
    if (this.#chosen.size > 2) {
      // The one chosen first gives way.
      const [oldest] = this.#chosen;
      this.#chosen.delete(oldest);
      const row = [...this.#body.children].find(({ dataset }) => dataset.run === oldest);
      if (row) row.querySelector("input").checked = false;
    }
    this.#drawCompare();
  }

  #drawCompare() {
    this.#compare.disabled = this.#chosen.size !== 2 || this.#comparing;
    setText(this.#compare.querySelector(".label"), this.#chosen.size === 1 ? "Compare: one more" : "Compare");
    this.#compare.title = "Choose two runs to compare";
  }

  #drawSide(...content) {
    this.#shown = "";
    if (content.length === 0) content = [
      el("p", { class: "empty", text: "Choose a run to see its details, or two to compare." }),
    ];
    replace(this.#side, ...content);
  }

  async #showRun(id, { again = false } = {}) {
    this.#open = id;
    for (const row of this.#body.children) {
      if (row.dataset.run === id) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
    const { api, toasts } = this.#ctx;
    let detail;
    try {
      detail = await api.historyEntry(id);
    } catch (error) {
      if (this.#open === id) this.#drawSide(el("p", { class: "empty", text: `${id}: ${error.message}` }));
      if (!again) toasts.unread(`${id} could not be read`, error);
      return;
    }
    // What is in view stays, with its focus and its place, where nothing changed.
    const shown = JSON.stringify(detail);
    if (this.#open !== id || this.#shown === shown) return;
    const { run, summary_metrics: metrics, governance, overrides, log, export: bundle, live } = detail;
    const facts = (pairs) => el(
      "dl",
      { class: "facts" },
      ...pairs.filter(([, value]) => value).map(([label, value]) => el(
        "div",
        {},
        el("dt", { text: label }),
        el("dd", {}, value),
      ))
    );
    const end = run.ended_at ?? new Date().toISOString();
    const download = button(
      bundle.size ? `Export (${bytes(bundle.size)})` : "Export",
      { icon: "download", kind: "primary", on: { click: () => this.#export(run, download) } },
    );
    const collecting = run.state !== "running" && log.state === "live";
    download.disabled = !bundle.available || collecting;
    if (collecting) download.title = "The results are still being collected";
    else if (!bundle.available) download.title = "There is nothing to export";
    else download.title = "Download the run's results, logs and snapshot as a zip";
    const logs = button("Logs", { icon: "logs", on: { click: () => this.#ctx.router.go("logs", id) } });
    this.#drawSide(
      el(
        "header",
        { class: "card-head" },
        el("h2", { class: "card-title mono", text: id }),
        el("span", { class: "spring" }),
        logs,
        download,
      ),
      collecting && el(
        "div",
        { class: "banner", data: { kind: "info" }, role: "status" },
        icon("info"),
        el(
          "div",
          { class: "banner-text" },
          el("span", { text: "The run is over; its results are still being collected." }),
        ),
      ),
      run.fault_reason && el(
        "div",
        { class: "banner", data: { kind: "error" } },
        icon("error"),
        el("div", { class: "banner-text" }, el("strong", { text: "Fault" }), el("span", { text: run.fault_reason })),
      ),
      facts([
        ["Scenario", run.scenario_id],
        ["Result", resultTag(run.state)],
        ["Ticks", `${count(run.ticks_completed)} of ${count(run.ticks_total)}`],
        ["Started", moment(run.started_at)],
        ["Ended", run.ended_at ? moment(run.ended_at) : "not yet"],
        ["Duration", duration(between(run.started_at, end))],
        ["Stopped because", run.stop_reason],
        [
          "Log",
          {
            disabled: "switched off",
            expired: "no longer kept",
          }[log.state] ?? `${count(log.entries)} entries, ${log.state}`,
        ],
        ["Last Σ |flux|", live ? String(live.sum_abs_flux) : null],
      ]),
      el("h3", { text: "Metrics" }),
      Object.keys(metrics).length
        ? el(
          "dl",
          { class: "facts" },
          ...Object.entries(metrics).map(([name, value]) => el(
            "div",
            { class: String(value).length > 20 ? "wide" : "" },
            el("dt", { text: words(name) }),
            el(
              "dd",
              {},
              el(
                "span",
                {
                  class: "mono",
                  text: typeof value === "number" ? count(value) : typeof value === "string" ? value : JSON.stringify(value),
                },
              ),
            ),
          ))
        )
        : el("p", { class: "hint", text: "None: they were switched off, or the run did not complete." }),
      Object.keys(overrides).length > 0 && el("h3", { text: "Options it was started with" }),
      Object.keys(overrides).length > 0 && facts(Object.entries(overrides).map(([name, value]) => [
        words(name),
        typeof value === "number" ? count(value) : String(value),
      ])),
      el("h3", { text: "Governance" }),
      governanceFacts(governance),
    );
    this.#shown = shown;
  }

  async #export(run, control) {
    const { api, toasts } = this.#ctx;
    const label = control.querySelector(".label");
    const before = label.textContent;
    const save = (address) => el("a", { href: address, download: `${run.run_id}.zip` }).click();
    control.disabled = true;
    control.setAttribute("aria-busy", "true");
    try {
      // A link can't say what went wrong, so first whether there is somebody to ask, and whether without a token.
      if (api.token === null) await api.historyEntry(run.run_id);
      if (api.token === null) {
        // The browser writes it to its place by itself, however large it is.
        save(api.exportAddress(run.run_id));
        return;
      }
      const blob = await api.exported(run.run_id, (size) => setText(label, bytes(size)));
      const address = URL.createObjectURL(blob);
      save(address);
      setTimeout(() => URL.revokeObjectURL(address), 60_000);
      toasts.success(`${run.run_id} is exported (${bytes(blob.size)})`);
    } catch (error) {
      toasts.error(`${run.run_id} was not exported`, error);
    } finally {
      setText(label, before);
      control.disabled = false;
      control.removeAttribute("aria-busy");
    }
  }

  async #showComparison() {
    // The older one is the baseline: the list is newest first.
    const [candidate, baseline] = this.#entries.map(({ run_id: id }) => id).filter((id) => this.#chosen.has(id));
    if (!baseline || this.#comparing) return;
    this.#open = "";
    this.#ctx.router.note("");
    for (const row of this.#body.children) row.removeAttribute("aria-current");
    this.#comparing = true;
    this.#compare.setAttribute("aria-busy", "true");
    this.#drawCompare();
    try {
      const { equal, differences, truncated, ...runs } = await this.#ctx.api.compare(baseline, candidate);
      if (this.#open) return; // another run was chosen meanwhile
      const number = `${count(differences.length)} ${differences.length === 1 ? "difference" : "differences"}`;
      const rows = differences.map(({ path, baseline: before, candidate: after }) => el(
        "tr",
        {},
        el("td", { class: "mono", text: path || "<root>" }),
        el("td", { class: "mono old", text: JSON.stringify(before) }),
        el("td", { class: "mono new", text: JSON.stringify(after) }),
      ));
      const about = (label, run) => el(
        "div",
        {},
        el("dt", { text: label }),
        el(
          "dd",
          {},
          el(
            "button",
            { type: "button", class: "link", text: run.run_id, on: { click: () => this.#pick(run.run_id) } },
          ),
          ` ${run.scenario_id}, ${run.state}, ${count(run.ticks_completed)} ticks`,
        ),
      );
      this.#drawSide(
        el(
          "header",
          { class: "card-head" },
          el("h2", { class: "card-title", text: "Comparison" }),
          el(
            "span",
            {
              class: "tag",
              text: equal ? "equal" : truncated ? `the first ${number}` : number,
            },
          ),
        ),
        el("dl", { class: "facts" }, about("Baseline", runs.baseline), about("Candidate", runs.candidate)),
        equal
          ? el("p", { class: "empty", text: "The two snapshots are equal." })
          : el(
            "div",
            { class: "scroll" },
            el(
              "table",
              { class: "diff" },
              el(
                "thead",
                {},
                el("tr", {}, ...["Where", "Baseline", "Candidate"].map((text) => el("th", { scope: "col", text }))),
              ),
              el("tbody", {}, ...rows),
            ),
          ),
      );
      this.#side.focus({ preventScroll: true });
      this.#reveal();
    } catch (error) {
      this.#ctx.toasts.error("The runs could not be compared", error);
    } finally {
      this.#comparing = false;
      this.#compare.removeAttribute("aria-busy");
      this.#drawCompare();
    }
  }
}
