/**
 * The topology with its nodes' values: a drawing up to 200 nodes, beyond that a summary (how the values lie,
 * and where the largest are).
 *
 * @module
 */

import { el, replace, set, setText, svg, uniqueId } from "./dom.js";
import { count, short } from "./format.js";
import { layout } from "./layout.js";

export const DRAWN_AT_MOST = 200;

const WIDTH = 400;
const HEIGHT = 310;

/** The least distance between two places. */
function closest(places) {
  let least = Infinity;
  for (const [index, { x, y }] of places.entries()) {
    for (const other of places.slice(index + 1)) least = Math.min(least, Math.hypot(x - other.x, y - other.y));
  }
  return least;
}

export class Topology {
  #stage = el("div", { class: "topology-stage" });
  #caption = el("p", { class: "topology-caption" });
  #shown = null;
  #nodes = [];
  #title = null;
  #summary = null;

  constructor() {
    this.element = el("div", { class: "topology" }, this.#stage, this.#caption);
    this.show(null);
  }

  /** Draw a `TopologyView` with its values before the first tick, or say that there is none. */
  show(topology) {
    if (topology === this.#shown && topology !== null) return;
    this.#shown = topology;
    this.#nodes = [];
    this.#summary = null;
    if (!topology) {
      replace(this.#stage, el("p", { class: "empty", text: "No topology to show" }));
      setText(this.#caption, "");
      return;
    }
    const { gid, nodes, nodes_total: total, edges_total: edges } = topology;
    if (total <= DRAWN_AT_MOST) this.#draw(topology);
    else this.#summarise();
    const part = nodes.length < total ? ` · values of the first ${count(Math.min(nodes.length, DRAWN_AT_MOST))}` : "";
    setText(this.#caption, `${gid} · ${count(total)} nodes · ${count(edges)} edges${part}`);
    this.update(null);
  }

  /** Show these values, in node order; null: those before the first tick. */
  update(values) {
    if (!this.#shown) return;
    values ??= this.#shown.nodes.slice(0, DRAWN_AT_MOST).map(({ initial }) => initial);
    if (this.#summary) this.#updateSummary(values);
    else if (values.length === this.#nodes.length) this.#updateDrawing(values);
  }

  #draw({ gid, nodes, edges }) {
    const index = new Map(nodes.map(({ node_id }, position) => [node_id, position]));
    const pairs = edges.map(({ i, j }) => [index.get(i), index.get(j)]);
    const margin = nodes.length <= 40 ? 38 : 16;
    const width = WIDTH - 2 * margin;
    const height = HEIGHT - 2 * margin;
    const places = layout(
      nodes.length,
      pairs,
      { aspect: width / height },
    ).map(({ x, y }) => ({ x: margin + x * width, y: margin + y * height }));
    const radius = Math.max(2.5, Math.min(24, closest(places) * 0.38));
    const lines = pairs.map(([a, b]) =>
      a === b
        ? svg("circle", { class: "topology-edge", cx: places[a].x + radius, cy: places[a].y - radius, r: radius * 0.7 })
        : svg("line", { class: "topology-edge", x1: places[a].x, y1: places[a].y, x2: places[b].x, y2: places[b].y }),
    );
    this.#nodes = nodes.map(({ node_id, label }, position) => {
      const { x, y } = places[position];
      const dot = svg("circle", { class: "topology-node", cx: x, cy: y, r: radius });
      const back = svg("circle", { class: "topology-back", cx: x, cy: y, r: radius });
      const value = radius >= 9 ? svg("text", { class: "topology-value", x, y, dy: "0.35em" }) : null;
      const name = nodes.length <= 40 ? svg(
        "text",
        { class: "topology-label", x, y: y + radius + 12, text: label || `n${node_id}` },
      ) : null;
      const title = svg("title", {});
      return {
        group: svg("g", {}, back, dot, value, name, title),
        dot,
        value,
        title,
        name: label || `n${node_id}`,
        radius,
      };
    });
    const titleId = uniqueId("topology");
    this.#title = svg("title", { id: titleId, text: `Topology ${gid}` });
    replace(
      this.#stage,
      svg(
        "svg",
        { class: "topology-drawing", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-labelledby": titleId },
        this.#title,
        svg("g", {}, ...lines),
        svg("g", {}, ...this.#nodes.map(({ group }) => group)),
      ),
    );
  }

  #updateDrawing(values) {
    const size = values.reduce((most, value) => Math.max(most, Math.abs(Number(value))), 0) || 1;
    for (const [position, { dot, value, title, name, radius }] of this.#nodes.entries()) {
      const share = Number(values[position]) / size;
      set(dot, { "fill-opacity": (0.06 + 0.84 * Math.abs(share)).toFixed(3) });
      dot.classList.toggle("negative", share < 0);
      if (value) {
        const text = short(values[position]);
        setText(value, text);
        value.setAttribute("font-size", (radius * Math.min(0.62, 2.2 / text.length)).toFixed(1));
      }
      setText(title, `${name}: ${count(values[position])}`);
    }
    const listed = this.#nodes.map(({ name }, position) => `${name} ${values[position]}`).join(", ");
    setText(this.#title, `Topology ${this.#shown.gid}${this.#nodes.length <= 40 ? `: ${listed}` : ""}`);
  }

  #summarise() {
    const bars = Array.from({ length: 24 }, () => svg("rect", { class: "topology-bar", width: 16, rx: 1.5 }));
    for (const [position, bar] of bars.entries()) bar.setAttribute("x", position * 20 + 2);
    const cells = Object.fromEntries(["smallest", "middle", "largest", "sum"].map((name) => [name, el("dd", { text: "–" })]));
    const low = el("span", { text: "" });
    const high = el("span", { text: "" });
    const top = el("ol", { class: "topology-top" });
    this.#summary = { bars, cells, low, high, top };
    replace(
      this.#stage,
      el(
        "div",
        { class: "topology-summary" },
        svg(
          "svg",
          {
            viewBox: "0 0 484 120",
            role: "img",
            "aria-label": "How the node values are distributed",
            class: "topology-bars",
          },
          ...bars
        ),
        el("div", { class: "topology-range" }, low, high),
        el(
          "dl",
          { class: "facts" },
          ...Object.entries({
            smallest: "Smallest",
            middle: "Median",
            largest: "Largest",
            sum: "Sum",
          }).map(([name, label]) => el("div", {}, el("dt", { text: label }), cells[name]))
        ),
        el("p", { class: "label", text: "Largest values" }),
        top,
      ),
    );
  }

  #updateSummary(values) {
    const { bars, cells, low, high, top } = this.#summary;
    const numbers = values.map(Number);
    const sorted = [...numbers].sort((a, b) => a - b);
    const [least, most] = [sorted[0], sorted.at(-1)];
    const bins = new Array(bars.length).fill(0);
    for (const number of numbers) {
      const share = (number - least) / (most - least || 1);
      bins[Math.min(bins.length - 1, Math.floor(share * bins.length))] += 1;
    }
    const highest = Math.max(...bins);
    for (const [position, bar] of bars.entries()) {
      const height = bins[position] ? Math.max(2, (116 * bins[position]) / highest) : 0;
      set(bar, { y: 120 - height, height });
    }
    setText(low, short(least));
    setText(high, short(most));
    setText(cells.smallest, count(least));
    setText(cells.middle, count(sorted[sorted.length >> 1]));
    setText(cells.largest, count(most));
    setText(cells.sum, count(numbers.reduce((sum, number) => sum + number, 0)));
    const largest = numbers.map((number, position) => ({
      number,
      node: this.#shown.nodes[position],
    })).sort((a, b) => b.number - a.number);
    const rows = largest.slice(0, 5).filter(({ node }) => node);
    replace(
      top,
      ...rows.map(({ number, node }) => el(
        "li",
        {},
        el("span", { text: node.label || `n${node.node_id}` }),
        el("span", { class: "number", text: count(number) }),
      ))
    );
  }
}
