// The visible texts whose contrast with what is behind them is less than 4.5 (WCAG 2.2, 1.4.3), and the fields whose
// border's is less than 3 (1.4.11). What is switched off is exempt.
() => {
  const parse = (colour) => { const [r, g, b, a = 1] = colour.match(/[\d.]+/g).map(Number); return { r, g, b, a }; };
  const over = (top, below) => ({ r: top.r * top.a + below.r * (1 - top.a), g: top.g * top.a + below.g * (1 - top.a), b: top.b * top.a + below.b * (1 - top.a), a: 1 });
  const light = ({ r, g, b }) => [r, g, b].map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)).reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const contrast = (top, below) => { const [one, two] = [light(over(top, below)), light(below)].sort((a, b) => b - a); return (one + 0.05) / (two + 0.05); };
  const above = (node) => { const found = []; for (let at = node; at; at = at.parentElement) found.unshift(getComputedStyle(at)); return found; };
  const behind = (node) => above(node).reduce((below, { backgroundColor }) => over(parse(backgroundColor), below), { r: 255, g: 255, b: 255, a: 1 });
  const faded = (node, colour) => ({ ...colour, a: above(node).reduce((alpha, { opacity }) => alpha * Number(opacity), colour.a) });
  const faint = [];
  const judge = (least, colour, below, what) => { const found = contrast(colour, below); if (found < least) faint.push(`${found.toFixed(2)} ${what}`); };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility() || node.closest(".sr, .skip, .tab-mark, button:disabled, title, option, noscript")) continue;
    const style = getComputedStyle(node);
    const drawn = node.closest("svg") !== null; // a text on a node has a stroke around it
    const below = drawn && style.stroke !== "none" ? parse(style.stroke) : behind(node);
    judge(4.5, faded(node, parse(drawn ? style.fill : style.color)), below, `${node.tagName}.${node.getAttribute("class")}: ${walker.currentNode.data.trim().slice(0, 40)}`);
  }
  for (const node of document.querySelectorAll("input:not([type=checkbox], [type=radio]), select, textarea, .switch")) {
    if (!node.checkVisibility() || node.disabled) continue;
    const style = getComputedStyle(node);
    judge(3, parse(node.matches(".switch") ? style.backgroundColor : style.borderTopColor), behind(node.parentElement), `the edge of ${node.tagName}.${node.className}`);
    if (node.placeholder) judge(4.5, parse(getComputedStyle(node, "::placeholder").color), behind(node), `the placeholder ${node.placeholder}`);
  }
  return faint;
}
