/** The question before unsaved work is left. @module */

import { el } from "./dom.js";
import { openDialog } from "./dialog.js";

/** Ask; true when the work may be left (it was saved with `save()`, or thrown away with `discard()`). */
export async function askBeforeLeaving({ what, save, discard }) {
  const answer = await openDialog({
    title: "Unsaved changes",
    kind: "warning",
    body: [el("p", { text: `${what} has changes that are not saved.` })],
    actions: [
      { name: "stay", label: "Keep editing" },
      { name: "discard", label: "Discard changes", kind: "danger" },
      { name: "save", label: "Save", kind: "primary" },
    ],
  });
  if (answer === "save") return save();
  if (answer === "discard") {
    discard();
    return true;
  }
  return false;
}
