/** One glance: the run, its course, the topology, the five pillars. @module */

import { Chart } from "../chart.js";
import { button, el, icon, replace, setText } from "../dom.js";
import { NONE, between, count, duration, percent, rate, short, timeOfDay } from "../format.js";
import { PillarCards } from "../pillarcards.js";
import { phaseOf } from "../phase.js";
import { Topology } from "../topology.js";

function tile(label) {
  const value = el("dd", { class: "tile-value", text: NONE });
  const note = el("dd", { class: "tile-note" });
  return { element: el("div", { class: "tile" }, el("dt", { text: label }), value, note), value, note };
}

export class Dashboard {
  #surface;
  #clock = null;
  #tiles = {
    tick: tile("Tick"),
    speed: tile("Speed"),
    flux: tile("Σ |flux|"),
    elapsed: tile("Elapsed"),
    rest: tile("Remaining"),
  };

  constructor(ctx) {
    const { surface } = ctx;
    this.#surface = surface;
    const { store } = surface;
    const flux = new Chart({
      title: "Σ |flux| per tick",
      show: short,
      showX: (tick) => `${short(Math.round(tick))}`,
      colour: "--accent",
    });
    const speed = new Chart({ title: "Ticks per second", show: rate, showX: duration, colour: "--second" });
    const topology = new Topology();
    const cards = new PillarCards();
    const message = el("div", { class: "banner-slot" });

    this.element = el(
      "div",
      { class: "dashboard" },
      el("h1", { class: "sr", text: "Dashboard" }),
      message,
      el("dl", { class: "tiles" }, ...Object.values(this.#tiles).map(({ element }) => element)),
      el(
        "div",
        { class: "dashboard-middle" },
        el("section", { class: "card charts", "aria-label": "Course of the run" }, flux.element, speed.element),
        el("section", { class: "card", "aria-label": "Topology" }, topology.element),
      ),
      el("section", { "aria-label": "Pillars" }, cards.element),
    );

    store.watch(["live", "run"], () => {
      const live = store.get("live");
      flux.show(live?.flux ?? [], store.get("run")?.ticks_total ?? null);
      speed.show(live?.rate ?? []);
      this.#figures();
    });
    store.watch(["topology", "live"], () => {
      topology.show(store.get("topology"));
      topology.update(store.get("live")?.nodes ?? null);
    });
    store.watch(
      ["pillars", "run"],
      () => cards.show(store.get("pillars"), { paused: phaseOf(store.get("run")) === "paused" }),
    );
    store.watch(["run", "who"], () => replace(message, this.#banner(store.get("run"), ctx)));
  }

  show() {
    this.#clock = setInterval(() => this.#figures(), 500);
    this.#figures();
  }

  hide() {
    clearInterval(this.#clock);
  }

  #figures() {
    const { tick, speed, flux, elapsed, rest } = this.#tiles;
    const run = this.#surface.store.get("run");
    const live = this.#surface.store.get("live");
    const phase = phaseOf(run);
    setText(tick.value, run ? count(run.ticks_completed) : NONE);
    setText(tick.note, run ? `of ${count(run.ticks_total)} · ${percent(run.progress)}` : "no run yet");
    setText(speed.value, live ? rate(live.ticks_per_s) : NONE);
    setText(speed.note, "ticks/s");
    setText(flux.value, live ? short(live.sum_abs_flux) : NONE);
    setText(flux.note, "in the last tick");
    const end = run?.ended_at ?? (run ? new Date().toISOString() : null);
    const seconds = between(run?.started_at, end);
    setText(elapsed.value, duration(Math.max(0, seconds)));
    setText(elapsed.note, run?.started_at ? `since ${timeOfDay(run.started_at).slice(0, 8)}` : "");
    const moving = phase === "running" && live?.ticks_per_s > 0;
    const left = moving ? (run.ticks_total - run.ticks_completed) / live.ticks_per_s : NaN;
    setText(rest.value, duration(left));
    setText(
      rest.note,
      {
        running: "at this speed",
        paused: "paused",
        queued: "not begun",
        finishing: "results are being stored",
        stopping: "stopping",
      }[phase] ?? "",
    );
  }

  #banner(run, ctx) {
    if (!run) return [];
    const details = button("Details", { kind: "quiet", on: { click: () => ctx.router.go("history", run.run_id) } });
    const logs = button("Logs", { kind: "quiet", on: { click: () => ctx.router.go("logs", run.run_id) } });
    const box = (kind, picture, title, text, ...actions) =>
      el(
        "div",
        { class: "banner", data: { kind }, role: kind === "error" ? "alert" : null },
        icon(picture),
        el("div", { class: "banner-text" }, el("strong", { text: title }), text && el("span", { text })),
        el("div", { class: "banner-actions" }, ...actions),
      );
    if (run.state === "fault") return [
      box("error", "error", `${run.run_id} faulted`, run.fault_reason ?? "No reason was given.", details, logs),
    ];
    if (run.state === "running") return run.note ? [box("warn", "warn", "Waiting", run.note)] : [];
    const dismiss = this.#surface.may("operator") && button(
      "Dismiss",
      { kind: "quiet", icon: "close", on: { click: () => this.#surface.dismiss() } },
    );
    const picture = { completed: "check", cancelled: "cancelled" }[run.state] ?? "info";
    return [
      box(
        run.state,
        picture,
        `${run.run_id} ${run.state}`,
        run.stop_reason ?? `${run.scenario_id}, ${count(run.ticks_completed)} ticks`,
        details,
        logs,
        dismiss,
      ),
    ];
  }
}
