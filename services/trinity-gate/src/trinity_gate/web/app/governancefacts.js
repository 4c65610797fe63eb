/** A governance snapshot, to be looked at. @module */

import { el } from "./dom.js";
import { count, words } from "./format.js";

export const KNOBS = ["max_actions_per_window", "max_proposals_per_window", "max_topology_changes"];

export function governanceFacts({ mode, codex_action_mode: codex, budget_knobs: knobs, policy_set_hash: hash }) {
  const names = [...new Set([...KNOBS, ...Object.keys(knobs)])];
  const facts = [
    ["Mode", mode],
    ["Codex action mode", codex],
    ...names.map((name) => [words(name), name in knobs ? count(knobs[name]) : "no limit"])
  ];
  return el(
    "dl",
    { class: "facts" },
    ...facts.map(([label, value]) => el("div", {}, el("dt", { text: label }), el("dd", { text: value }))),
    el(
      "div",
      { class: "wide" },
      el("dt", { text: "Policy set hash" }),
      el("dd", {}, el("code", { class: "hash", text: hash })),
    ),
  );
}
