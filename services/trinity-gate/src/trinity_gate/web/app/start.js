/** The dialog that starts a run with other settings than the scenario's own. @module */

import { el } from "./dom.js";
import { openDialog } from "./dialog.js";
import { failAt, field, numberOf, refill, select, toggle } from "./fields.js";

const AS_IS = [
  ["", "As the scenario says"],
  ["true", "On"],
  ["false", "Off"],
];

/** Ask for the overrides and start. Errors show at their field and the dialog stays. */
export async function startWithOptions({ surface, api, toasts }) {
  const { store } = surface;
  const scenario = field(
    "Scenario",
    select(store.get("scenarios").map(({ id, name }) => [id, name === id ? id : `${name} (${id})`])),
    { wide: true },
  );
  scenario.input.value = store.get("scenario")?.id ?? openScenario(store) ?? store.get("scenarios")[0]?.id ?? "";
  const ticks = field(
    "Ticks",
    el("input", { type: "text", inputmode: "numeric", autocomplete: "off", placeholder: "As the scenario says" }),
  );
  const preset = field("Governance", select([["", "As the scenario says"]]));
  // They may take their time: the dialog is there at once.
  api.governancePresets().then(
    (presets) => refill(preset.input, [["", "As the scenario says"], ...presets.map(({ id, name }) => [id, name])]),
    (error) => toasts.error("The presets could not be read", error),
  );
  const metrics = field("Metrics", select(AS_IS));
  const logging = field("Logging", select(AS_IS));
  const paused = toggle("Start paused", { hint: "waits before the first tick" });
  const failure = el("p", { class: "form-error", role: "alert" });

  await openDialog({
    title: "Start a run",
    body: [
      el(
        "div",
        { class: "form-grid" },
        ...[scenario, ticks, preset, metrics, logging, paused].map(({ element }) => element)
      ),
      failure,
    ],
    actions: [
      { name: "cancel", label: "Cancel" },
      { name: "start", label: "Start", icon: "play", kind: "primary", submit: true },
    ],
    focus: ticks.input,
    onSubmit: async () => {
      failure.textContent = "";
      const overrides = {};
      if (ticks.input.value.trim()) overrides.ticks_total = numberOf(ticks.input.value.replaceAll(/[\s,_]/g, ""));
      if (preset.input.value) overrides.governance_preset = preset.input.value;
      if (metrics.input.value) overrides.metrics_enabled = metrics.input.value === "true";
      if (logging.input.value) overrides.logging_enabled = logging.input.value === "true";
      const request = { scenario_id: scenario.input.value };
      if (Object.keys(overrides).length) request.overrides = overrides;
      if (paused.input.checked) request.paused = true;
      try {
        if (await surface.command("start", request)) return true;
        failure.textContent = "A run can't be started right now.";
      } catch (error) {
        const names = {
          scenario_id: scenario,
          ticks_total: ticks,
          governance_preset: preset,
          metrics_enabled: metrics,
          logging_enabled: logging,
          paused,
        };
        if (!failAt(names, error)) failure.textContent = `${error.message} (${error.code})`;
      }
      return false;
    },
  });
}

/** The scenario that is being looked at (`#/scenarios/<id>`), where there is one. */
function openScenario(store) {
  const [, place, id] = location.hash.split("/");
  return place === "scenarios" && id
    ? store.get("scenarios").find((scenario) => scenario.id === decodeURIComponent(id))?.id
    : undefined;
}
