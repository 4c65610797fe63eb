/**
 * The bar at the top of every tab: what goes on, and the controls the state allows.
 *
 * @module
 */

import { button, el, icon, replace, set, setIcon, setText } from "./dom.js";
import { confirmDanger } from "./dialog.js";
import { NONE, count, percent, rate } from "./format.js";
import { pillOf } from "./phase.js";
import { startWithOptions } from "./start.js";

const LOOKS = {
  start: { label: "Start", icon: "play", kind: "primary", key: "s" },
  pause: { label: "Pause", icon: "pause", kind: "", key: "p" },
  resume: { label: "Resume", icon: "play", kind: "primary", key: "p" },
  step: { label: "Step", icon: "step", kind: "", key: "." },
  stop: { label: "Stop", icon: "stop", kind: "danger", key: "x" },
  reset: { label: "Reset", icon: "reset", kind: "primary", key: "r" },
};

const BUSY = {
  start: "Starting…",
  pause: "Pausing…",
  resume: "Resuming…",
  step: "Stepping…",
  stop: "Stopping…",
  reset: "Resetting…",
};

const PICTURES = {
  idle: "idle",
  queued: "history",
  running: "running",
  paused: "pause",
  finishing: "save",
  stopping: "stop",
  fault: "error",
};

export class Controls {
  #surface;
  #ctx;
  #buttons = new Map();
  #asking = false;
  #group = el("div", { class: "controls", role: "group", "aria-label": "Run" });
  #held = false; // the focus was among the controls, and nowhere else since

  constructor(topbar, ctx) {
    const { surface } = ctx;
    this.#surface = surface;
    this.#ctx = ctx;
    const { store } = surface;
    const brand = el(
      "a",
      { class: "brand", href: "#/dashboard" },
      el("img", { src: new URL("../mark.svg", import.meta.url).pathname, alt: "", width: "26", height: "26" }),
      el("span", { text: "Trinity Gate" }),
    );

    const pillIcon = icon("idle");
    const pillText = el("span");
    const pill = el("span", { class: "pill" }, pillIcon, pillText);
    const scenario = el(
      "button",
      {
        type: "button",
        class: "scenario-chip",
        on: { click: () => ctx.router.go("scenarios", store.get("scenario")?.id ?? "") },
      },
      el("span", { class: "chip-label" }, "Active", el("span", { text: " scenario" })),
      el("strong"),
    );

    const bar = el("span", { class: "progress-bar" });
    const progress = el(
      "div",
      {
        class: "progress",
        role: "progressbar",
        "aria-label": "Progress of the run",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
      },
      bar,
    );
    const left = el("span");
    const right = el("span", { class: "number" });
    const course = el("div", { class: "course" }, el("div", { class: "course-text" }, left, right), progress);

    for (const [name, look] of Object.entries(LOOKS)) {
      const node = button(
        look.label,
        {
          kind: look.kind,
          icon: look.icon,
          "aria-keyshortcuts": look.key,
          title: `${look.label} (${look.key.toUpperCase()})`,
          data: { control: name },
          on: { click: () => this.press(name) },
        },
      );
      this.#buttons.set(name, node);
    }
    const options = button(
      "Start with options",
      {
        kind: "primary icon-only",
        icon: "options",
        title: "Start with options (O)",
        "aria-keyshortcuts": "o",
        "aria-haspopup": "dialog",
        data: { control: "options" },
        on: { click: () => this.options() },
      },
    );
    const group = this.#group;
    addEventListener("pointerdown", (event) => {
      if (!group.contains(event.target)) this.#held = false;
    });
    replace(topbar, brand, el("div", { class: "topbar-state" }, pill, scenario), course, group);

    store.watch(["run", "busy", "connection", "who", "scenario"], () => {
      const run = store.get("run");
      const busy = store.get("busy");
      const active = store.get("scenario");
      const { kind, text, last } = pillOf(run);
      pill.dataset.kind = kind;
      setIcon(pillIcon, PICTURES[kind]);
      setText(pillText, text);
      setText(scenario.lastElementChild, active?.id ?? "none");
      set(scenario, { title: active ? `${active.name} – open` : "Choose a scenario" });

      const share = run?.progress ?? (run?.ticks_total ? (run.ticks_completed ?? 0) / run.ticks_total : null);
      bar.style.width = `${((share ?? 0) * 100).toFixed(2)}%`;
      progress.dataset.kind = kind;
      set(
        progress,
        {
          "aria-valuenow": ((share ?? 0) * 100).toFixed(1),
          "aria-valuetext": run
            ? `${percent(share)}, tick ${count(run.ticks_completed)} of ${count(run.ticks_total)}`
            : "no run",
        },
      );
      setText(left, run ? (last ? `Last run ${last} · ${run.scenario_id}` : run.scenario_id) : "No run");
      this.#tail(right, run, share);

      const shown = this.#surface.controls;
      this.#holdFocus();
      const nodes = shown.flatMap(({ name, enabled }) => {
        const node = this.#buttons.get(name);
        node.disabled = !enabled;
        setText(node.querySelector(".label"), busy === name ? BUSY[name] : LOOKS[name].label);
        node.setAttribute("aria-busy", String(busy === name));
        if (name !== "start") return [node];
        options.disabled = !enabled;
        return [node, options];
      });
      if (nodes.length !== group.children.length || nodes.some((node, index) => node !== group.children[index])) {
        replace(group, ...nodes);
      }
      this.#keepFocus();
      const heading = run?.state === "running" ? `${percent(share)} ${text} · ` : kind === "fault" ? "Fault · " : "";
      document.title = `${heading}Trinity Gate`;
    });
    store.watch(["live"], () => this.#tail(right, store.get("run"), null));
  }

  #holdFocus() {
    const focused = document.activeElement;
    if (this.#group.contains(focused)) this.#held = true;
    else if (focused !== document.body && !focused?.closest("dialog")) this.#held = false;
  }

  /** The focus stays with the controls when the one that had it goes or is switched off. */
  #keepFocus() {
    const focused = document.activeElement;
    if (!this.#held || (focused !== document.body && !focused.disabled)) return;
    // While a command waits for its answer all are off, and then the same one may be there again.
    if (!this.#surface.store.get("busy")) this.#group.querySelector("button:not(:disabled)")?.focus();
  }

  /** What happens when a control is used, by pointer or key. */
  async press(name) {
    if (this.#asking || !this.#surface.can(name)) return;
    this.#holdFocus();
    if (name === "start") {
      const id = this.#surface.store.get("scenario")?.id;
      if (!id) return this.options();
      this.#asking = true;
      const settled = await this.#ctx.scenarios.settled(id);
      this.#asking = false;
      if (!settled) return;
    }
    if (name === "stop") {
      const run = this.#surface.store.get("run");
      this.#asking = true;
      const sure = await confirmDanger({
        title: "Stop this run?",
        text: `${run.run_id} (${run.scenario_id}) ends between two ticks and is recorded as cancelled. It can't be resumed.`,
        label: "Stop the run",
        icon: "stop",
      });
      this.#asking = false;
      this.#keepFocus();
      // Meanwhile it may have ended, and another one begun.
      if (!sure || this.#surface.store.get("run")?.run_id !== run.run_id) return;
    }
    await this.#surface.command(name);
  }

  /** Ask how the run is to be, then start it. */
  async options() {
    if (this.#asking || !this.#surface.can("start")) return;
    this.#asking = true;
    this.#holdFocus();
    try {
      await startWithOptions(this.#ctx);
    } finally {
      this.#asking = false;
      this.#keepFocus();
    }
  }

  #tail(node, run, share) {
    if (!run) {
      setText(node, "");
      return;
    }
    share ??= run.progress;
    const live = this.#surface.store.get("live");
    const speed = run.state === "running" && !run.paused && live ? ` · ${rate(live.ticks_per_s)} ticks/s` : "";
    setText(
      node,
      `${count(run.ticks_completed)} / ${count(run.ticks_total)} · ${share === null ? NONE : percent(share)}${speed}`,
    );
  }
}
