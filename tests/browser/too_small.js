// The visible controls, with their labels, that are less than 24 pixels wide or high (WCAG 2.2, 2.5.8).
() => [...document.querySelectorAll("button, input, select, textarea, a, summary")]
  .filter((node) => node.checkVisibility() && !node.closest(".skip"))
  .map((node) => ({ node, box: (node.closest("label") ?? node).getBoundingClientRect() }))
  .filter(({ box }) => Math.min(box.width, box.height) < 24)
  .map(({ node, box }) => `${node.tagName}.${node.className} ${Math.round(box.width)} × ${Math.round(box.height)}`)
