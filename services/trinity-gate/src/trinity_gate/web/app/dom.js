/**
 * Build elements. Everything that is shown goes in as text: nothing here parses markup.
 *
 * @module
 */

import { ICONS } from "./icons.js";

const SVG = "http://www.w3.org/2000/svg";

/** Set the properties and attributes of `node`; see `el`. */
export function set(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name === "class") node.setAttribute("class", value);
    else if (name === "text") node.textContent = value;
    else if (name in node && (typeof value === "boolean" || name === "value")) node[name] = value;
    else if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  return node;
}

/**
 * Make an element: `el("button", {class: "b", text: "Go", on: {click}}, ...children)`.
 *
 * Children are nodes or strings (text); null, undefined and false are left out.
 */
export function el(tag, props = {}, ...children) {
  const node = set(document.createElement(tag), props);
  append(node, children);
  return node;
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  const node = set(document.createElementNS(SVG, tag), props);
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat()) if (child || child === 0) node.append(child);
}

/** A picture of `icons.js`; decoration only, so hidden from readers. */
export function icon(name, extra = "") {
  const line = svg("path", { class: "icon-line" });
  const solid = svg("path", { class: "icon-solid" });
  const node = svg(
    "svg",
    { class: `icon ${extra}`.trim(), viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    line,
    solid,
  );
  setIcon(node, name);
  return node;
}

/** Show another picture in an `icon`. */
export function setIcon(node, name) {
  if (node.dataset.icon === name) return;
  node.dataset.icon = name;
  const [line, solid = ""] = ICONS[name];
  node.firstElementChild.setAttribute("d", line);
  node.lastElementChild.setAttribute("d", solid);
}

/** Set text only where it differs, so that a reader's selection and a live region stay quiet. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Make `parent` hold exactly `children`. */
export function replace(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((child) => child || child === 0));
}

let serial = 0;

/** An id for a label, a description or a tab panel. */
export function uniqueId(prefix) {
  serial += 1;
  return `${prefix}-${serial}`;
}

/** A button with an optional picture: `button("Save", {icon: "save", kind: "primary", on: {click}})`. */
export function button(label, { icon: picture, kind = "", ...props } = {}) {
  return el(
    "button",
    { type: "button", class: `button ${kind}`.trim(), ...props },
    picture && icon(picture),
    el("span", { class: "label", text: label }),
  );
}
