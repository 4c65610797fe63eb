/** Form fields with a label, a hint and a place for what is wrong with them. @module */

import { el, setText, uniqueId } from "./dom.js";

/**
 * Put an input under its label. Answers `{element, input, fail(message)}`; `fail("")` takes the message away.
 */
export function field(label, input, { hint = "", wide = false } = {}) {
  const inputId = uniqueId("field");
  const hintId = uniqueId("hint");
  const errorId = uniqueId("error");
  const error = el("p", { class: "field-error", id: errorId, role: "alert" });
  input.id = inputId;
  input.setAttribute("aria-describedby", `${hint ? `${hintId} ` : ""}${errorId}`);
  const element = el(
    "div",
    { class: `field ${wide ? "wide" : ""}`.trim() },
    el("label", { for: inputId, text: label }),
    input,
    hint && el("p", { class: "hint", id: hintId, text: hint }),
    error,
  );
  const fail = (message) => {
    setText(error, message);
    if (message) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  input.addEventListener("input", () => fail(""));
  return { element, input, fail };
}

/** A switch with its label beside it. */
export function toggle(label, { hint = "" } = {}) {
  const input = el("input", { type: "checkbox", class: "switch", role: "switch" });
  const errorId = uniqueId("error");
  const error = el("p", { class: "field-error", id: errorId, role: "alert" });
  input.setAttribute("aria-describedby", errorId);
  const element = el(
    "div",
    { class: "field switch-field" },
    el("label", { class: "check" }, input, el("span", {}, label, hint && el("span", { class: "hint", text: hint }))),
    error,
  );
  return { element, input, fail: (message) => setText(error, message) };
}

/** A `<select>` of `[value, label]` pairs. */
export function select(options, props = {}) {
  return el("select", props, ...options.map(([value, label]) => el("option", { value, text: label })));
}

/** Give a `<select>` other options, keeping what is chosen where it still exists. */
export function refill(node, options) {
  const chosen = node.value;
  node.replaceChildren(...options.map(([value, label]) => el("option", { value, text: label })));
  if (options.some(([value]) => value === chosen)) node.value = chosen;
}

/** "a, b ,c" → ["a", "b", "c"]. */
export function listOf(text) {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter(Boolean);
}

/** What is typed in a number field: the number, or the text itself where it is none, so that the service judges it. */
export function numberOf(text) {
  const number = Number(text);
  return text.trim() !== "" && Number.isFinite(number) ? number : text;
}

/**
 * Show an `ApiError` at the field it names (`names` maps the service's field names to fields); true when it found
 * one. The field gets the focus.
 */
export function failAt(names, error) {
  const name = error.field ?? "";
  const within = ([known]) => name.endsWith(`.${known}`) || name.startsWith(`${known}.`);
  const found = names[name] ?? Object.entries(names).find(within)?.[1];
  if (!found) return false;
  found.fail(error.message.replace(`${name}: `, ""));
  found.input.focus();
  return true;
}
