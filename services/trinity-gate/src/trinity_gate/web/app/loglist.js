/**
 * A list of log entries that stays fast at any length: only the lines in view exist as elements. Filtering
 * looks at each entry once, and at those that come in later only.
 *
 * Keyboard: ↑ ↓ Page Up/Down Home End move the selection, whose details are shown; Escape lets it go.
 *
 * @module
 */

import { el, set, setText, uniqueId } from "./dom.js";
import { timeOfDay } from "./format.js";

export const LEVELS = ["DEBUG", "INFO", "WARN", "ERROR"];
const LINE = 24; // pixels, `--log-line` in views.css
const SPARE = 12; // lines built beyond the edges, so that a quick scroll shows no gap

/** Whether an entry passes: `level` is the lowest shown, `text` is looked for in message, event and payload. */
export function passes(entry, { level = "DEBUG", text = "", run = null }) {
  if (LEVELS.indexOf(entry.level) < LEVELS.indexOf(level)) return false;
  if (run !== null && entry.run_id !== run) return false;
  return text === "" || searched(entry).includes(text);
}

const texts = new WeakMap();

/** For comparing: lower case, and 199,999 as 199999. */
function plain(text) {
  return text.toLowerCase().replaceAll(/(\d),(?=\d{3}(?!\d))/g, "$1");
}

/** The entry's text for comparing, made once. */
function searched(entry) {
  let text = texts.get(entry);
  if (text === undefined) {
    text = plain(`${entry.event_type} ${entry.message} ${entry.payload ? JSON.stringify(entry.payload) : ""}`);
    texts.set(entry, text);
  }
  return text;
}

export class LogList {
  #entries = [];
  #matches = []; // positions in #entries, counted from the first entry ever
  #dropped = 0; // how many entries went at the front
  #filter = { level: "DEBUG", text: "", run: null };
  #follow = true;
  #pulled = false;
  #selected = -1; // position, as in #matches
  #first = -1;
  #last = -1;
  #pool = [];
  #scheduled = false;
  #limit;
  #onChange;
  #onOpen;
  #viewport;
  #spacer;
  #rows;
  #moving = false;

  /**
   * `limit` entries are kept, the oldest go first. `onChange({shown, total, dropped, follow})` is told after each
   * drawing, `onOpen(entry | null)` when an entry is selected.
   */
  constructor({ limit = 250_000, onChange = () => {}, onOpen = () => {} } = {}) {
    this.#limit = limit;
    this.#onChange = onChange;
    this.#onOpen = onOpen;
    this.#rows = el("div", { class: "log-rows", role: "rowgroup" });
    this.#spacer = el("div", { class: "log-spacer", role: "presentation" }, this.#rows);
    this.#viewport = el(
      "div",
      {
        class: "log-viewport",
        role: "grid",
        tabindex: "0",
        "aria-label": "Log entries",
        "aria-readonly": "true",
        on: {
          scroll: () => this.#scrolled(),
          wheel: (event) => this.#wheeled(event),
          keydown: (event) => this.#key(event),
          click: (event) => this.#click(event),
        },
      },
      this.#spacer,
    );
    new ResizeObserver(() => this.#schedule()).observe(this.#viewport);
  }

  get element() {
    return this.#viewport;
  }

  get counts() {
    return { shown: this.#matches.length, total: this.#entries.length, dropped: this.#dropped, follow: this.#follow };
  }

  /** The entries that pass the filter, oldest first. */
  *shown() {
    for (const position of this.#matches) yield this.#entries[position - this.#dropped];
  }

  /** Add entries at the end. */
  append(entries) {
    let position = this.#dropped + this.#entries.length;
    for (const entry of entries) {
      this.#entries.push(entry);
      if (passes(entry, this.#filter)) this.#matches.push(position);
      position += 1;
    }
    // In larger steps, since cutting at the front moves everything.
    if (this.#entries.length > this.#limit * 1.1) this.#drop(this.#entries.length - this.#limit);
    this.#schedule();
  }

  /** Hold exactly these entries; `before` of them were left out already. */
  reset(entries = [], before = 0) {
    this.#select(-1);
    this.#entries = [];
    this.#matches = [];
    this.#dropped = before;
    this.append(entries);
  }

  /** Change the filter; `text` is case-insensitive. */
  filter(change) {
    const next = { ...this.#filter, ...change };
    next.text = plain(next.text.trim());
    this.#filter = next;
    this.#matches = [];
    for (const [index, entry] of this.#entries.entries()) {
      if (passes(entry, next)) this.#matches.push(index + this.#dropped);
    }
    if (this.#selected >= 0 && this.#indexOf(this.#selected) < 0) this.#select(-1);
    this.#schedule();
  }

  /** Keep the newest line in view, or stay where the reader is. */
  follow(on) {
    this.#follow = on;
    this.#pulled = false;
    this.#schedule();
  }

  /** Let the selected entry go. */
  release() {
    this.#select(-1);
  }

  #drop(number) {
    const gone = this.#dropped + number;
    this.#entries.splice(0, number);
    this.#dropped = gone;
    let cut = 0;
    while (cut < this.#matches.length && this.#matches[cut] < gone) cut += 1;
    this.#matches.splice(0, cut);
    if (!this.#follow) this.#viewport.scrollTop -= cut * LINE;
    if (this.#selected < gone) this.#select(-1);
  }

  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    requestAnimationFrame(() => {
      this.#scheduled = false;
      this.#draw();
    });
  }

  /** The reader pulls away: at once, for with lines pouring in our own scrolling would win over theirs. */
  #wheeled({ deltaY }) {
    this.#pulled = deltaY < 0 && this.#viewport.scrollTop > 0;
    if (!this.#pulled) return;
    this.#follow = false;
    this.#moving = false;
    this.#schedule();
  }

  #scrolled() {
    const rest = this.#viewport.scrollHeight - this.#viewport.clientHeight - this.#viewport.scrollTop;
    if (this.#moving) {
      this.#moving = false;
    } else if (!this.#pulled || rest >= LINE) {
      // Scrolling up lets go, reaching the end takes hold again.
      this.#pulled = false;
      this.#follow = rest < LINE;
    }
    this.#schedule();
  }

  #draw() {
    const height = this.#viewport.clientHeight;
    if (height > 0) {
      this.#spacer.style.height = `${Math.max(this.#matches.length * LINE, 1)}px`;
      if (this.#follow) {
        const end = Math.max(0, this.#matches.length * LINE - height);
        if (Math.abs(this.#viewport.scrollTop - end) >= 1) {
          this.#moving = true;
          this.#viewport.scrollTop = end;
        }
      }
      // After filtering, the place may lie beyond the end until the browser has moved it.
      const top = Math.min(
        Math.floor(this.#viewport.scrollTop / LINE),
        Math.max(0, this.#matches.length - Math.floor(height / LINE)),
      );
      this.#first = Math.max(0, top - SPARE);
      this.#last = Math.min(this.#matches.length, top + Math.ceil(height / LINE) + SPARE);
      this.#rows.style.transform = `translateY(${this.#first * LINE}px)`;
      for (let index = this.#first; index < this.#last; index += 1) this.#fill(index - this.#first, index);
      // The elements are used again and again: out of view, the selected entry has none.
      const active = this.#indexOf(this.#selected) - this.#first;
      if (active >= 0 && active < this.#last - this.#first) {
        set(this.#viewport, { "aria-activedescendant": this.#pool[active].row.id });
      } else this.#viewport.removeAttribute("aria-activedescendant");
      for (let slot = this.#last - this.#first; slot < this.#pool.length; slot += 1) {
        this.#pool[slot].row.hidden = true;
        this.#pool[slot].entry = null; // what was left out is not held on to
      }
      this.#viewport.setAttribute("aria-rowcount", String(this.#matches.length));
    }
    this.#onChange(this.counts);
  }

  #fill(slot, index) {
    let line = this.#pool[slot];
    if (!line) {
      const cell = (name) => el("span", { class: `log-${name}`, role: "gridcell" });
      line = { time: cell("time"), level: cell("level"), event: cell("event"), message: cell("message"), row: null, entry: null };
      line.row = el(
        "div",
        { class: "log-line", role: "row", id: uniqueId("log-line") },
        line.time,
        line.level,
        line.event,
        line.message,
      );
      this.#pool.push(line);
      this.#rows.append(line.row);
    }
    const position = this.#matches[index];
    const entry = this.#entries[position - this.#dropped];
    line.row.hidden = false;
    const selected = position === this.#selected;
    line.row.dataset.position = String(position);
    set(line.row, { "aria-rowindex": String(index + 1) });
    // Another run's log has other entries at the same positions.
    if (line.entry !== entry) {
      line.entry = entry;
      line.row.dataset.level = entry.level;
      setText(line.time, timeOfDay(entry.timestamp));
      setText(line.level, entry.level);
      setText(line.event, entry.event_type);
      setText(line.message, entry.message);
    }
    line.row.setAttribute("aria-selected", String(selected));
  }

  /** Where a position lies in #matches, or -1: the matches are sorted. */
  #indexOf(position) {
    let low = 0;
    let high = this.#matches.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (this.#matches[middle] === position) return middle;
      if (this.#matches[middle] < position) low = middle + 1;
      else high = middle - 1;
    }
    return -1;
  }

  #select(position) {
    if (position === this.#selected) return;
    this.#selected = position;
    if (position < 0) this.#viewport.removeAttribute("aria-activedescendant");
    this.#onOpen(position < 0 ? null : this.#entries[position - this.#dropped]);
    this.#schedule();
  }

  #click(event) {
    const row = event.target.closest(".log-line");
    if (!row) return;
    const position = Number(row.dataset.position);
    this.#select(position === this.#selected ? -1 : position);
  }

  #key(event) {
    if (event.key === "Escape" && this.#selected >= 0) {
      event.preventDefault();
      this.#select(-1);
      return;
    }
    const page = Math.max(1, Math.floor(this.#viewport.clientHeight / LINE) - 1);
    const last = this.#matches.length - 1;
    const now = this.#selected < 0 ? -1 : this.#indexOf(this.#selected);
    const from = now < 0 ? (this.#follow ? last + 1 : Math.floor(this.#viewport.scrollTop / LINE) - 1) : now;
    const next = {
      ArrowDown: from + 1,
      ArrowUp: from - 1,
      PageDown: from + page,
      PageUp: from - page,
      Home: 0,
      End: last,
    }[event.key];
    if (next === undefined || last < 0) return;
    event.preventDefault();
    const index = Math.min(last, Math.max(0, next));
    this.#follow = index === last && event.key === "End";
    this.#select(this.#matches[index]);
    const top = this.#viewport.scrollTop;
    if (index * LINE < top) this.#viewport.scrollTop = index * LINE;
    else if (
      (index + 1) * LINE > top + this.#viewport.clientHeight
    ) this.#viewport.scrollTop = (index + 1) * LINE - this.#viewport.clientHeight;
  }
}
