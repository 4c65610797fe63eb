/** The five pillar cards: how each is, and its figures. @module */

import { el, icon, set, setText } from "./dom.js";
import { percent } from "./format.js";

const PILLARS = ["aether", "press", "umx", "loom", "codex"];

/** What each pillar is, for the Pillars tab. */
export const ABOUT = {
  aether: "The gate: carries the run's envelopes from tick to tick and checks them against governance.",
  press: "Closes windows over streams of values and estimates how many bits they would take.",
  umx: "Moves value along the topology's edges and keeps a ledger of every tick.",
  loom: "Weaves the ticks into a chain, with a block of the whole state now and then.",
  codex: "Learns motifs from the run and proposes actions, as far as governance lets it.",
};

export class PillarCards {
  #cards = new Map();

  /** `detailed`: with an explanation, as links to nothing: cards are read-only. */
  constructor({ detailed = false } = {}) {
    for (const id of PILLARS) {
      const name = el("h2", { class: "pillar-name", text: id });
      const status = el("span", { class: "pillar-status", text: "unknown" });
      const headline = el("p", { class: "pillar-headline" });
      const secondary = el("p", { class: "pillar-secondary" });
      const mode = el("span", { class: "tag", hidden: true });
      const bar = el("span", { class: "meter-bar" });
      const meter = el(
        "div",
        { class: "meter", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100", hidden: true },
        bar,
      );
      const element = el(
        "article",
        { class: "card pillar", data: { pillar: id, status: "unknown" } },
        el("header", { class: "pillar-head" }, icon(id), name, status),
        headline,
        el("div", { class: "pillar-foot" }, secondary, mode),
        detailed && el("p", { class: "pillar-about", text: ABOUT[id] }),
        meter,
      );
      this.#cards.set(id, { element, name, status, headline, secondary, mode, meter, bar });
    }
    this.element = el(
      "div",
      { class: `pillars ${detailed ? "detailed" : ""}`.trim() },
      ...[...this.#cards.values()].map(({ element }) => element)
    );
  }

  /** Show `PillarStatus[]`. `paused`: what is said to run waits. */
  show(pillars, { paused = false } = {}) {
    for (const pillar of pillars) {
      const card = this.#cards.get(pillar.pillar_id);
      if (!card) continue;
      const status = paused && pillar.status === "running" ? "paused" : pillar.status;
      card.element.dataset.status = status;
      setText(card.name, pillar.name);
      setText(card.status, status);
      setText(card.headline, pillar.headline_metric ?? "–");
      setText(card.secondary, pillar.secondary_metric ?? "");
      card.mode.hidden = !pillar.governance_mode;
      setText(card.mode, pillar.governance_mode ?? "");
      const known = Number.isFinite(pillar.load);
      card.meter.hidden = !known;
      if (known) {
        card.bar.style.width = `${pillar.load * 100}%`;
        set(
          card.meter,
          { "aria-valuenow": (pillar.load * 100).toFixed(0), "aria-label": `${pillar.name}: ${percent(pillar.load)}` },
        );
      }
    }
  }
}
