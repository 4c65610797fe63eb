/** All pillars, read-only, with the gate in focus: what governs the run and what it reported. @module */

import { el, replace, setText } from "../dom.js";
import { governanceFacts } from "../governancefacts.js";
import { count, rate, short } from "../format.js";
import { phaseOf } from "../phase.js";
import { PillarCards } from "../pillarcards.js";

export class Pillars {
  #ctx;
  #visible = false;
  #detailOf = null;
  #governance = el("div");

  constructor(ctx) {
    this.#ctx = ctx;
    const { store } = ctx.surface;
    const cards = new PillarCards({ detailed: true });
    const of = el("p", { class: "view-note" });
    const cells = Object.fromEntries([
      "Run",
      "State",
      "Ticks",
      "Ticks/s",
      "Σ |flux|",
      "Sum of all nodes shown",
    ].map((label) => [label, el("dd", { text: "–" })]));
    this.element = el(
      "div",
      { class: "pillars-view" },
      el("header", { class: "view-head" }, el("h1", { text: "Pillars" }), of),
      cards.element,
      el(
        "section",
        { class: "card", "aria-label": "Gate" },
        el("header", { class: "card-head" }, el("h2", { class: "card-title", text: "Gate" })),
        el(
          "dl",
          { class: "facts" },
          ...Object.entries(cells).map(([label, cell]) => el(
            "div",
            { class: label === "Run" ? "double" : "" },
            el("dt", { text: label }),
            cell,
          ))
        ),
        el("h3", { text: "Governance of this run" }),
        this.#governance,
      ),
    );
    store.watch(
      ["pillars", "run"],
      () => cards.show(store.get("pillars"), { paused: phaseOf(store.get("run")) === "paused" }),
    );
    store.watch(["run", "live"], () => {
      const run = store.get("run");
      const live = store.get("live");
      setText(of, run ? `as reported by ${run.run_id}` : "no run yet");
      setText(cells.Run, run?.run_id ?? "–");
      setText(cells.State, run ? (run.state === "running" ? run.phase : run.state) : "idle");
      setText(cells.Ticks, run ? `${count(run.ticks_completed)} of ${count(run.ticks_total)}` : "–");
      setText(cells["Ticks/s"], live ? rate(live.ticks_per_s) : "–");
      setText(cells["Σ |flux|"], live ? short(live.sum_abs_flux) : "–");
      setText(
        cells["Sum of all nodes shown"],
        live ? short(live.nodes.reduce((sum, value) => sum + Number(value), 0)) : "–",
      );
      if (this.#visible) this.#follow();
    });
    ctx.surface.on("governance", () => {
      if (this.#detailOf === "") this.#detailOf = null; // the base is shown
      if (this.#visible) this.#follow();
    });
  }

  show() {
    this.#visible = true;
    this.#follow();
  }

  hide() {
    this.#visible = false;
  }

  /** The governance of the run that is shown; without one, the base that the next run gets. */
  async #follow() {
    const run = this.#ctx.surface.store.get("run")?.run_id ?? "";
    if (run === this.#detailOf) return;
    this.#detailOf = run;
    try {
      const governance = run ? (await this.#ctx.api.historyEntry(run)).governance : await this.#ctx.api.governance();
      if (this.#detailOf === run) replace(
        this.#governance,
        !run && el("p", { class: "hint", text: "No run: the service's base." }),
        governanceFacts(governance),
      );
    } catch (error) {
      this.#detailOf = null;
      replace(this.#governance, el("p", { class: "empty", text: `Not known: ${error.message}` }));
    }
  }
}
