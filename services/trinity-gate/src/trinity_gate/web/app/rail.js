/** What stands below the tabs: the connection, who one is, theme and help. @module */

import { button, el, icon, set, setIcon, setText } from "./dom.js";
import { openDialog } from "./dialog.js";
import { field } from "./fields.js";
import { preferences } from "./remembered.js";

const THEMES = {
  auto: ["light", "Theme: as the system"],
  light: ["dark", "Theme: light"],
  dark: ["auto", "Theme: dark"],
};
const PICTURES = { auto: "auto", light: "sun", dark: "moon" };

export function theme() {
  const chosen = preferences.get("theme", "auto");
  return chosen in THEMES ? chosen : "auto";
}

/** The next theme: system, light, dark, system… It is remembered. */
export function nextTheme() {
  const [next] = THEMES[theme()];
  preferences.set("theme", next);
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  dispatchEvent(new Event("themechange"));
}

/** Ask for the bearer token; null when the operator would rather not. */
export async function askForToken(wrong) {
  const token = field(
    "Token",
    el("input", { type: "password", autocomplete: "off", spellcheck: "false" }),
    { hint: "kept in this browser tab only, until it is closed", wide: true },
  );
  if (wrong) token.fail("The service does not know this token.");
  const answer = await openDialog({
    title: "This service asks for a token",
    body: [token.element],
    actions: [
      { name: "cancel", label: "Cancel" },
      { name: "use", label: "Continue", icon: "key", kind: "primary", submit: true },
    ],
    focus: token.input,
    onSubmit: () => {
      if (/^[A-Za-z0-9._~+/=-]+$/.test(token.input.value.trim())) return true;
      token.fail("A token has letters, digits and ._~+/=- only.");
      token.input.focus();
      return false;
    },
  });
  return answer === "use" ? token.input.value.trim() : null;
}

/** Fill the foot of the rail. */
export function drawRail(rail, { surface, shortcuts, api }) {
  const { store } = surface;
  const dot = el("span", { class: "dot" });
  const word = el("span", { class: "connection-text" });
  const connection = el("div", { class: "connection", role: "status", "aria-live": "polite" }, dot, word);
  const now = button("Try now", { kind: "quiet small", on: { click: () => surface.retry() } });
  const who = el("span", { class: "who" });
  const key = button(
    "Another token",
    { kind: "bare icon-only", icon: "key", title: "Use another token", on: { click: () => changeToken(api, surface) } },
  );
  const themeButton = button(
    "Theme",
    { kind: "bare icon-only", icon: PICTURES[theme()], "aria-keyshortcuts": "t", on: { click: nextTheme } },
  );
  const help = button(
    "Keyboard",
    {
      kind: "bare icon-only",
      icon: "keyboard",
      title: "Keyboard (?)",
      "aria-keyshortcuts": "?",
      on: { click: () => shortcuts.help() },
    },
  );
  rail.append(el(
    "div",
    { class: "rail-foot" },
    el("div", { class: "connection-line" }, connection, now),
    who,
    el("div", { class: "rail-buttons" }, key, themeButton, help),
  ));

  const drawTheme = () => {
    setIcon(themeButton.querySelector("svg"), PICTURES[theme()]);
    const [, label] = THEMES[theme()];
    set(themeButton, { title: `${label} (T)` });
    setText(themeButton.querySelector(".label"), label);
  };
  addEventListener("themechange", drawTheme);
  drawTheme();

  store.watch(["connection"], () => {
    const state = store.get("connection");
    connection.dataset.state = state;
    document.documentElement.dataset.connection = state;
    setText(
      word,
      { live: "Live", connecting: "Connecting…", reconnecting: "Reconnecting…", refused: "A token is needed" }[state],
    );
    now.hidden = state !== "reconnecting";
  });
  store.watch(["who", "connection"], () => {
    const me = store.get("who");
    setText(who, me ? (me.token_required ? `${me.name} · ${me.role}` : me.role) : "");
    key.hidden = !me?.token_required && !api.token && store.get("connection") !== "refused";
  });
}

async function changeToken(api, surface) {
  const token = await askForToken(false);
  if (token === null) return;
  api.token = token;
  await surface.reload();
  surface.restart();
}
