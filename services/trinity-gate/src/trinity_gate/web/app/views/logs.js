/**
 * Logs and console: the entries of a run as they come, or of everything this page has seen.
 *
 * @module
 */

import { button, el, icon, replace, set, setText } from "../dom.js";
import { refill, select } from "../fields.js";
import { brief, count, moment, timeOfDay } from "../format.js";
import { RunLog } from "../logbook.js";
import { LEVELS, LogList } from "../loglist.js";

const CURRENT = "";
const OTHERS_KEPT = 4; // logs of other runs that stay in memory…
const OTHERS_ENTRIES = 100_000; // …as long as they are no longer than this together

export class Logs {
  #ctx;
  #logs = new Map();
  #chosen = CURRENT;
  #visible = false;
  #status = "";
  #list;
  #run = select([[CURRENT, "Current: none"]], { "aria-label": "Run" });
  #level = select(
    LEVELS.map((level) => [
      level,
      level === "DEBUG" ? "All levels" : level === "ERROR" ? "ERROR only" : `${level} and up`,
    ]),
    { "aria-label": "Level" },
  );
  #search = el(
    "input",
    {
      type: "search",
      placeholder: "Search  /",
      "aria-label": "Search in the entries",
      "aria-keyshortcuts": "/",
      autocomplete: "off",
    },
  );
  #only = el("input", { type: "checkbox", class: "switch", role: "switch", checked: true });
  #follow = button("Follow", { icon: "follow", "aria-pressed": "true", "aria-keyshortcuts": "f" });
  #counts = el("p", { class: "log-counts" }); // changes too often to be read out
  #detail = el("aside", { class: "log-detail", "aria-label": "Entry", hidden: true });
  #nothing = el("p", { class: "log-nothing empty" });

  constructor(ctx) {
    this.#ctx = ctx;
    this.#list = new LogList({
      onChange: (counts) => this.#drawCounts(counts),
      onOpen: (entry) => this.#drawDetail(entry),
    });
    const download = button(
      "Save what is shown",
      {
        kind: "bare icon-only",
        icon: "download",
        title: "Save what is shown as JSON lines",
        on: { click: () => this.#download() },
      },
    );
    this.element = el(
      "div",
      { class: "card logs-view" },
      el("h1", { class: "sr", text: "Logs and console" }),
      el(
        "div",
        { class: "toolbar" },
        this.#run,
        el("label", { class: "check" }, this.#only, "Current run only"),
        this.#level,
        el("div", { class: "search" }, icon("search"), this.#search),
        this.#counts,
        download,
        this.#follow,
      ),
      el("div", { class: "log-area" }, this.#list.element, this.#nothing, this.#detail),
    );
    let typing = null;
    this.#search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#list.filter({ text: this.#search.value }), 120);
    });
    this.#level.addEventListener("change", () => this.#list.filter({ level: this.#level.value }));
    this.#only.addEventListener("change", () => this.#gather());
    this.#run.addEventListener("change", () => this.#ctx.router.go("logs", this.#run.value));
    this.#follow.addEventListener("click", () => this.toggleFollow());
    ctx.own.listen((entry) => this.#everything && this.#list.append([entry]));
    ctx.surface.store.watch(["run"], () => this.#runChanged());
    ctx.surface.on("history", () => this.#visible && this.#fillRuns());
  }

  show(run) {
    this.#visible = true;
    this.#chosen = run;
    this.#fillRuns();
    this.#gather();
    this.#attach();
  }

  hide() {
    this.#visible = false;
    for (const log of this.#logs.values()) log.close();
  }

  search() {
    this.#search.focus();
    this.#search.select();
  }

  toggleFollow() {
    this.#list.follow(!this.#list.counts.follow);
  }

  /** The run that is shown: the one chosen, else the one under way or the last one. */
  get #shown() {
    return this.#chosen || this.#ctx.surface.store.get("run")?.run_id || null;
  }

  get #everything() {
    return !this.#only.checked;
  }

  #shownBefore = null;

  #runChanged() {
    const shown = this.#shown;
    if (shown === this.#shownBefore) return;
    this.#shownBefore = shown;
    if (!this.#visible) return;
    this.#fillRuns();
    this.#gather();
    this.#attach();
  }

  /** Follow the log of the shown run, and of no other. */
  #attach() {
    const shown = this.#shown;
    this.#shownBefore = shown;
    for (const [run, log] of this.#logs) if (run !== shown) log.close();
    if (shown === null) return;
    let log = this.#logs.get(shown);
    if (!log) {
      log = new RunLog(this.#ctx.api, shown, {
        changed: ({ added, reset }) => {
          if (reset) this.#gather();
          else if (this.#everything || this.#shown === shown) this.#list.append(added);
        },
        status: (status) => {
          if (this.#shown !== shown) return;
          this.#status = {
            live: "",
            complete: "complete",
            missing: "no such run",
            connecting: "connecting…",
            waiting: "reconnecting…",
          }[status] ?? "";
          this.#drawCounts(this.#list.counts);
        },
      });
      this.#logs.set(shown, log);
      this.#forgetOthers(shown);
    }
    this.#status = log.complete ? "complete" : "connecting…";
    log.open();
  }

  #forgetOthers(shown) {
    let [number, entries] = [0, 0];
    for (const [run, log] of [...this.#logs].reverse()) {
      if (run === shown) continue;
      number += 1;
      entries += log.entries.length;
      if (number > OTHERS_KEPT || entries > OTHERS_ENTRIES) this.#logs.delete(run);
    }
  }

  /** Show what belongs in view, from the beginning. */
  #gather() {
    if (this.#everything) {
      const all = [...this.#logs.values()].flatMap(({ entries }) => entries).concat(this.#ctx.own.entries);
      // All times are UTC in ISO 8601, so they sort as text.
      this.#list.reset(all.sort((a, b) => (a.timestamp < b.timestamp ? -1 : a.timestamp > b.timestamp ? 1 : 0)));
    } else {
      const entries = this.#logs.get(this.#shown)?.entries ?? [];
      this.#list.reset(entries, entries[0]?.index ?? 0);
    }
  }

  async #fillRuns() {
    const current = this.#ctx.surface.store.get("run");
    const options = new Map([[CURRENT, current ? `Current: ${brief(current.run_id)}` : "Current: none"]]);
    if (this.#chosen) options.set(this.#chosen, this.#chosen);
    const fill = () => {
      refill(this.#run, [...options]);
      this.#run.value = this.#chosen;
    };
    fill();
    try {
      const { entries } = await this.#ctx.api.history({ limit: 50 });
      for (const { run_id: id, scenario_id: scenario, started_at: start } of entries) options.set(
        id,
        `${moment(start)} · ${scenario} · ${id}`,
      );
      fill();
    } catch (error) {
      this.#ctx.toasts.unread("The list of runs could not be read", error);
    }
  }

  #drawCounts({ shown, total, dropped, follow }) {
    this.#follow.setAttribute("aria-pressed", String(follow));
    const parts = [shown === total ? `${count(total)} entries` : `${count(shown)} of ${count(total)}`];
    if (dropped) parts.push(`${count(dropped)} oldest left out`);
    if (total === 0 && this.#shown === null) parts[0] = "No run yet";
    if (this.#status && !this.#everything) parts.push(this.#status);
    const text = parts.join(" · ");
    setText(this.#counts, text);
    set(this.#counts, { title: text });
    this.#nothing.hidden = shown > 0;
    if (shown === 0) setText(this.#nothing, this.#whyNothing(total));
  }

  #whyNothing(total) {
    if (total > 0) return "No entry matches.";
    if (this.#everything) return "Nothing has happened yet.";
    if (this.#shown === null) return "No run yet. The log of the next one appears here.";
    if (this.#status === "complete") return "No entries: logging was switched off, or the log is no longer kept.";
    return { "": "No entries yet.", "no such run": "There is no such run." }[this.#status] ?? "Reading…";
  }

  #drawDetail(entry) {
    this.#detail.hidden = !entry;
    if (!entry) return;
    const facts = [
      ["Time", moment(entry.timestamp).replace(/[^ ]*$/, timeOfDay(entry.timestamp))],
      ["Level", entry.level],
      ["Event", entry.event_type],
      ["Run", entry.run_id],
      ["Number", entry.index === undefined ? null : count(entry.index)],
      ["Tick", entry.tick === undefined || entry.tick === null ? null : count(entry.tick)],
    ];
    const close = button(
      "Close",
      {
        kind: "bare icon-only",
        icon: "close",
        title: "Close (Esc in the list)",
        on: {
          click: () => {
            this.#list.release();
            this.#list.element.focus();
          },
        },
      },
    );
    replace(
      this.#detail,
      el("header", { class: "card-head" }, el("h2", { class: "card-title", text: "Entry" }), el("span", { class: "spring" }), close),
      el("p", { class: "log-detail-message", text: entry.message }),
      el(
        "dl",
        { class: "facts" },
        ...facts.filter(([, value]) => value !== null).map(([label, value]) => el(
          "div",
          {},
          el("dt", { text: label }),
          el("dd", { class: "mono", text: value }),
        ))
      ),
      entry.payload && el("h3", { text: "Payload" }),
      entry.payload && el("pre", { class: "payload", tabindex: "0", text: JSON.stringify(entry.payload, null, 2) }),
    );
  }

  #download() {
    const lines = [];
    for (const entry of this.#list.shown()) lines.push(JSON.stringify(entry), "\n");
    const address = URL.createObjectURL(new Blob(lines, { type: "application/jsonl" }));
    el("a", { href: address, download: `${this.#shown ?? "console"}.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  }
}
