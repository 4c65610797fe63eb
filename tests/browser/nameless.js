// The visible controls that have no name for an assistive technology.
() => {
  const controls = "button, input, select, textarea, a, [role=progressbar], [role=grid], dialog";
  const named = (node) =>
    node.getAttribute("aria-label") || node.getAttribute("aria-labelledby") || node.textContent.trim() || node.labels?.length;
  return [...document.querySelectorAll(controls)]
    .filter((node) => node.checkVisibility() && !named(node))
    .map((node) => node.outerHTML.slice(0, 120));
}
