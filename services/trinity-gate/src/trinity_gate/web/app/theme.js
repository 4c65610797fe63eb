/* Set the remembered theme before the first paint. A classic script: a module would run too late. */
"use strict";
(() => {
  let chosen = "auto";
  try {
    chosen = localStorage.getItem("gate.theme") || "auto";
  } catch {
    /* A browser that keeps nothing: the system's scheme it is. */
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
