/**
 * What the surface's state allows: the one table that every control, shortcut and label asks.
 *
 * @module
 */

/** Per phase: the controls shown, each with whether it may be used (item 7 of the issue; the others: README). */
const CONTROLS = {
  idle: { start: true },
  queued: { pause: false, step: false, stop: true },
  running: { pause: true, step: false, stop: true },
  paused: { resume: true, step: true, stop: true },
  finishing: { pause: false, step: false, stop: true },
  stopping: { pause: false, step: false, stop: false },
  fault: { reset: true },
};

/** The service's run → the surface's phase. A run that has ended leaves the surface idle, except by a fault. */
export function phaseOf(run) {
  if (run?.state === "running") return run.phase in CONTROLS ? run.phase : run.paused ? "paused" : "running";
  return run?.state === "fault" ? "fault" : "idle";
}

/** The controls to show now: `[{name, enabled}]`. */
export function controlsOf(run, { allowed, busy, connected }) {
  return Object.entries(CONTROLS[phaseOf(run)]).map(([name, usable]) => ({
    name,
    enabled: usable && allowed && !busy && connected,
  }));
}

const WORDS = { queued: "Queued", running: "Running", paused: "Paused", stopping: "Stopping", finishing: "Finishing" };

/** The state pill: `kind` (colour and picture), `text`, and as `last` what the last run came to where none is under way. */
export function pillOf(run) {
  const phase = phaseOf(run);
  if (phase === "fault") return { kind: "fault", text: "Fault", last: null };
  if (phase === "idle") return { kind: "idle", text: "Idle", last: run && run.state !== "idle" ? run.state : null };
  return { kind: phase, text: WORDS[phase], last: null };
}
