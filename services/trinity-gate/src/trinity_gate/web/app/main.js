/** Put the page together. @module */

import { Api } from "./api.js";
import { Controls } from "./controls.js";
import { OwnLog } from "./logbook.js";
import { pillOf } from "./phase.js";
import { askForToken, drawRail, nextTheme } from "./rail.js";
import { Router } from "./router.js";
import { Shortcuts } from "./shortcuts.js";
import { Surface } from "./surface.js";
import { Toasts } from "./toasts.js";
import { Dashboard } from "./views/dashboard.js";
import { Governance } from "./views/governance.js";
import { History } from "./views/history.js";
import { Logs } from "./views/logs.js";
import { Pillars } from "./views/pillars.js";
import { Scenarios } from "./views/scenarios.js";

const part = (id) => document.querySelector(`#${id}`);

const own = new OwnLog();
const toasts = new Toasts(part("toasts"), (level, message) => own.record(level, message));
const api = new Api({ askForToken });
const surface = new Surface(api, toasts);
const shortcuts = new Shortcuts();
const ctx = { api, own, surface, toasts, router: null, scenarios: null };

// Whatever goes wrong in the page itself is shown like everything else.
addEventListener("error", (event) => toasts.error("The page has a fault", event.error ?? event.message));
addEventListener("unhandledrejection", (event) => toasts.error("The page has a fault", event.reason));

const logs = new Logs(ctx);
const scenarios = new Scenarios(ctx);
ctx.scenarios = scenarios;
const views = [
  { name: "dashboard", label: "Dashboard", short: "Dashboard", icon: "dashboard", view: new Dashboard(ctx) },
  { name: "scenarios", label: "Scenario & Config", short: "Scenario", icon: "scenarios", view: scenarios },
  { name: "pillars", label: "Pillars", short: "Pillars", icon: "pillars", view: new Pillars(ctx) },
  { name: "governance", label: "Governance & Budgets", short: "Govern", icon: "governance", view: new Governance(ctx) },
  { name: "history", label: "History & Exports", short: "History", icon: "history", view: new History(ctx) },
  { name: "logs", label: "Logs & Console", short: "Logs", icon: "logs", view: logs },
];

const router = new Router(part("rail"), part("main"), views);
ctx.router = router;
const controls = new Controls(part("topbar"), ctx);
drawRail(part("rail"), { surface, shortcuts, api });

for (const [position, { name, label }] of views.entries()) shortcuts.add(
  String(position + 1),
  label,
  () => router.go(name),
);
shortcuts.add("s", "Start the active scenario", () => controls.press("start"));
shortcuts.add("o", "Start with options", () => controls.options());
shortcuts.add("p", "Pause, resume", () => controls.press(surface.can("resume") ? "resume" : "pause"));
shortcuts.add(".", "One step while paused", () => controls.press("step"));
shortcuts.add("x", "Stop (asks)", () => controls.press("stop"));
shortcuts.add("r", "Reset after a fault", () => controls.press("reset"));
shortcuts.add("/", "Search in the logs", () => router.go("logs").then((there) => there && logs.search()));
shortcuts.add("f", "Logs: follow the newest entry", () => router.current === "logs" && logs.toggleFollow());
shortcuts.add("t", "Theme: system, light, dark", nextTheme);
shortcuts.add("?", "This list", () => shortcuts.help());

part("skip").addEventListener("click", () => part("main").focus());

announceState();
await surface.begin();
await router.start();
document.documentElement.dataset.ready = "true";

/** Say changes of the run's state to a screen reader, and note them in the console: once each, without figures. */
function announceState() {
  let said = null;
  let connection = null;
  surface.store.watch(["run", "connection"], () => {
    const run = surface.store.get("run");
    const { text, last } = pillOf(run);
    const now = run ? `${run.run_id}: ${last ?? text}` : "no run";
    if (now !== said) {
      if (said !== null) {
        part("announcer").textContent = now;
        own.record(run?.state === "fault" ? "ERROR" : "INFO", now, "state");
      }
      said = now;
    }
    const link = surface.store.get("connection");
    if (link !== connection) own.record(
      link === "reconnecting" ? "WARN" : "DEBUG",
      `The connection is ${link}`,
      "connection",
    );
    connection = link;
  });
}
