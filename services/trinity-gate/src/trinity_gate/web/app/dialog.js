/**
 * Modal dialogs: the browser's own `<dialog>` (inert page behind it, Escape, focus given back), plus a focus
 * trap that keeps Tab inside.
 *
 * @module
 */

import { button, el, uniqueId } from "./dom.js";

const FOCUSABLE = ":is(button, input, select, textarea):not([disabled]), a[href], [tabindex='0']";

function trap(dialog) {
  dialog.addEventListener("keydown", (event) => {
    event.stopPropagation(); // no shortcut of the page while a dialog is open
    if (event.key !== "Tab") return;
    const inside = [...dialog.querySelectorAll(FOCUSABLE)].filter((node) => node.offsetParent !== null);
    if (inside.length === 0) return;
    const first = inside[0];
    const last = inside.at(-1);
    if (event.shiftKey && document.activeElement === first) {
      event.preventDefault();
      last.focus();
    } else if (!event.shiftKey && document.activeElement === last) {
      event.preventDefault();
      first.focus();
    }
  });
}

/**
 * Show a dialog and wait for it.
 *
 * `actions` are `{name, label, kind?, icon?, submit?}`; the answer is the name of the one chosen, or null after
 * Escape. An action with `submit` runs `onSubmit()` first and the dialog stays open where that answers false.
 * `focus` is the element that gets the focus; without it the first action that is not dangerous.
 */
export function openDialog({ title, body = [], actions, onSubmit = () => true, focus = null, kind = "" }) {
  const titleId = uniqueId("dialog-title");
  const bodyId = uniqueId("dialog-body");
  const buttons = new Map(actions.map((action) => [
    action.name,
    button(action.label, { kind: action.kind ?? "", icon: action.icon, value: action.name }),
  ]));
  const form = el(
    "form",
    { method: "dialog", class: "dialog-form", novalidate: true },
    el("h2", { id: titleId, class: "dialog-title", text: title }),
    el("div", { id: bodyId, class: "dialog-body" }, ...body),
    el("div", { class: "dialog-actions" }, ...buttons.values()),
  );
  const dialog = el(
    "dialog",
    { class: `dialog ${kind}`.trim(), "aria-labelledby": titleId },
    form,
  );
  // A text belongs to the question; a form is read field by field.
  if (!form.querySelector("input, select, textarea")) dialog.setAttribute("aria-describedby", bodyId);
  trap(dialog);
  document.body.append(dialog);

  return new Promise((resolve) => {
    let answer = null;
    let busy = false;
    // What is under way is waited for: its failure would have nowhere to be said.
    dialog.addEventListener("keydown", (event) => busy && event.key === "Escape" && event.preventDefault());
    dialog.addEventListener("cancel", (event) => busy && event.preventDefault());
    const choose = async (action) => {
      if (busy) return;
      if (action.submit) {
        busy = true;
        dialog.setAttribute("aria-busy", "true");
        buttons.get(action.name).setAttribute("aria-busy", "true");
        let accepted = false;
        try {
          accepted = await onSubmit();
        } finally {
          busy = false;
          dialog.removeAttribute("aria-busy");
          buttons.get(action.name).removeAttribute("aria-busy");
        }
        if (!accepted) return;
      }
      answer = action.name;
      dialog.close();
    };
    for (const action of actions) buttons.get(action.name).addEventListener("click", () => choose(action));
    form.addEventListener("submit", (event) => {
      event.preventDefault(); // Enter in a field: the main action
      const main = actions.find((action) => action.submit);
      if (main) choose(main);
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(answer);
    });
    dialog.showModal();
    (focus ?? buttons.get((actions.find((action) => action.kind !== "danger") ?? actions[0]).name)).focus();
  });
}

/** Ask before something that can't be undone; true when confirmed. The focus is on the way out. */
export async function confirmDanger({ title, text, label, icon }) {
  const answer = await openDialog({
    title,
    kind: "warning",
    body: [el("p", { text })],
    actions: [
      { name: "keep", label: "Cancel" },
      { name: "go", label, icon, kind: "danger" },
    ],
  });
  return answer === "go";
}
