/**
 * A line on a canvas, with a readout under the pointer. Colours come from the stylesheet, so a
 * change of theme is only a redraw.
 *
 * @module
 */

import { el, setText } from "./dom.js";
import { NONE } from "./format.js";

const PAD = { top: 8, right: 8, bottom: 18, left: 44 };

/** A round upper bound with its half: 0…1, 0…2, 0…5, times a power of ten. */
export function ceiling(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const lead = value / power;
  return (lead <= 1 ? 1 : lead <= 2 ? 2 : lead <= 5 ? 5 : 10) * power;
}

export class Chart {
  #canvas = el("canvas", { class: "chart-canvas", role: "img" });
  #value = el("span", { class: "chart-value" });
  #where = el("span", { class: "chart-where" });
  #points = [];
  #hover = null;
  #show;
  #title;
  #colour;
  #showX;
  #total = null;
  #scheduled = false;

  /** `show(y)` and `showX(x)` word the numbers, `colour` is the name of a CSS variable. */
  constructor({ title, show, showX, colour }) {
    this.#title = title;
    this.#show = show;
    this.#showX = showX;
    this.#colour = colour;
    this.element = el(
      "figure",
      { class: "chart" },
      el(
        "figcaption",
        { class: "chart-head" },
        el("span", { class: "chart-title", text: title }),
        this.#where,
        this.#value,
      ),
      this.#canvas,
    );
    this.#canvas.addEventListener("pointermove", (event) => {
      this.#hover = event.offsetX;
      this.#schedule();
    });
    this.#canvas.addEventListener("pointerleave", () => {
      this.#hover = null;
      this.#schedule();
    });
    new ResizeObserver(() => this.#schedule()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#schedule());
    addEventListener("themechange", () => this.#schedule());
  }

  /** Show the points `[x, y]`, x growing, over 0…`total`, or as far as they reach. */
  show(points, total = null) {
    this.#points = points.map(([x, y]) => [x, Number(y)]);
    this.#total = total;
    this.#schedule();
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#draw();
    });
  }

  #draw() {
    const width = this.#canvas.clientWidth;
    const height = this.#canvas.clientHeight;
    if (width === 0 || height === 0) return;
    const scale = devicePixelRatio || 1;
    if (this.#canvas.width !== Math.round(width * scale) || this.#canvas.height !== Math.round(height * scale)) {
      this.#canvas.width = Math.round(width * scale);
      this.#canvas.height = Math.round(height * scale);
    }
    const paint = this.#canvas.getContext("2d");
    const style = getComputedStyle(this.element);
    const colour = style.getPropertyValue(this.#colour).trim();
    const line = style.getPropertyValue("--line").trim();
    const muted = style.getPropertyValue("--muted").trim();
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, width, height);

    const points = this.#points;
    const newest = points.at(-1);
    const highest = points.reduce((most, [, value]) => Math.max(most, value), 0);
    // A long run would show nothing for long: the axis grows with it, up to the total.
    const reached = newest?.[0] ?? 0;
    const end = Math.max(reached, Math.min(this.#total ?? 0, ceiling(reached))) || 1;
    const top = ceiling(highest);
    const x = ([where]) => PAD.left + (where / end) * (width - PAD.left - PAD.right);
    const level = (value) => height - PAD.bottom - (value / top) * (height - PAD.top - PAD.bottom);
    const y = ([, value]) => level(value);

    paint.font = `11px ${style.fontFamily}`;
    paint.fillStyle = muted;
    paint.strokeStyle = line;
    paint.lineWidth = 1;
    paint.textBaseline = "middle";
    paint.textAlign = "right";
    for (const share of [0, 0.5, 1]) {
      const ruled = Math.round(level(top * share)) + 0.5;
      paint.beginPath();
      paint.moveTo(PAD.left, ruled);
      paint.lineTo(width - PAD.right, ruled);
      paint.stroke();
      // A half that is rounded would be wrong, so it goes without a label.
      if (points.length && (share !== 0.5 || top > 1)) paint.fillText(this.#show(top * share), PAD.left - 6, ruled);
    }
    paint.textBaseline = "alphabetic";
    paint.textAlign = "left";
    if (points.length) paint.fillText(this.#showX(0), PAD.left, height - 4);
    paint.textAlign = "right";
    if (points.length) paint.fillText(this.#showX(end), width - PAD.right, height - 4);

    if (points.length) {
      paint.beginPath();
      for (const [index, point] of points.entries()) {
        if (index === 0) paint.moveTo(x(point), y(point));
        else paint.lineTo(x(point), y(point));
      }
      paint.strokeStyle = colour;
      paint.lineWidth = 1.75;
      paint.lineJoin = "round";
      paint.stroke();
      paint.lineTo(x(newest), level(0));
      paint.lineTo(x(points[0]), level(0));
      paint.globalAlpha = 0.1;
      paint.fillStyle = colour;
      paint.fill();
      paint.globalAlpha = 1;
    }

    if (!points.length) {
      paint.textAlign = "center";
      paint.fillText("no data yet", (PAD.left + width - PAD.right) / 2, level(0.25 * top));
    }

    let marked = newest;
    if (this.#hover !== null && points.length) {
      const distance = (point) => Math.abs(x(point) - this.#hover);
      marked = points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
      const across = Math.round(x(marked)) + 0.5;
      paint.strokeStyle = muted;
      paint.lineWidth = 1;
      paint.beginPath();
      paint.moveTo(across, PAD.top);
      paint.lineTo(across, height - PAD.bottom);
      paint.stroke();
    }
    if (marked) {
      paint.fillStyle = colour;
      paint.beginPath();
      paint.arc(x(marked), y(marked), 3.5, 0, 2 * Math.PI);
      paint.fill();
    }
    setText(this.#value, marked ? this.#show(marked[1]) : NONE);
    setText(this.#where, this.#hover !== null && marked ? `at ${this.#showX(marked[0])}` : "");
    const label = newest
      ? `${this.#title}: ${this.#show(newest[1])} at ${this.#showX(newest[0])}, highest ${this.#show(highest)}`
      : `${this.#title}: no data yet`;
    if (this.#canvas.getAttribute("aria-label") !== label) this.#canvas.setAttribute("aria-label", label);
  }
}
