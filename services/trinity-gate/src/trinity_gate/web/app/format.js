/** How numbers, times and durations read, everywhere on the page. @module */

const whole = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(
  "en-GB",
  { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false },
);
const thisYear = new Intl.DateTimeFormat(
  "en-GB",
  { month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false },
);
const day = new Intl.DateTimeFormat(
  "en-GB",
  {
    year: "numeric",
    month: "short",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hour12: false,
  },
);

export const NONE = "–";

/** 200000 → "200,000"; what is not a number → "–". Values beyond 2^53 come as text and stay as they are. */
export function count(value) {
  if (typeof value === "string" && value !== "") return value;
  return Number.isFinite(value) ? whole.format(value) : NONE;
}

/** 12345 → "12.3K", for places with room for five characters. */
export function short(value) {
  if (typeof value === "string" && /^-?\d+$/.test(value)) value = Number(value);
  if (!Number.isFinite(value)) return NONE;
  return Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value);
}

/** A rate per second. */
export function rate(value) {
  if (!Number.isFinite(value)) return NONE;
  return value > 0 && value < 10 ? value.toFixed(1) : short(value);
}

/** 0.4231 → "42.3 %". */
export function percent(value) {
  if (!Number.isFinite(value)) return NONE;
  // Never "100 %" before the end.
  const shown = value < 1 ? Math.min(99.9, Math.floor(value * 1000) / 10) : 100;
  return `${shown.toFixed(shown === 100 ? 0 : 1)} %`;
}

/** Seconds → "40 ms", "1.4 s", "12 s", "3 min 20 s", "2 h 05 min". */
export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return NONE;
  if (seconds === 0) return "0 s";
  if (seconds < 0.95) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** The seconds between two ISO 8601 times; NaN where one is missing. */
export function between(start, end) {
  if (!start || !end) return NaN;
  return (Date.parse(end) - Date.parse(start)) / 1000;
}

/** A time of day with milliseconds, local. */
export function timeOfDay(iso) {
  const when = new Date(iso);
  if (Number.isNaN(when.getTime())) return NONE;
  return `${clock.format(when)}.${String(when.getMilliseconds()).padStart(3, "0")}`;
}

/** A date and time, local; the year only where it is another one. */
export function moment(iso) {
  const when = new Date(iso ?? NaN);
  if (Number.isNaN(when.getTime())) return NONE;
  return (when.getFullYear() === new Date().getFullYear() ? thisYear : day).format(when);
}

/** A size in bytes. */
export function bytes(value) {
  if (!Number.isFinite(value)) return NONE;
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
}

/** A long id by its end, which is what tells two apart. */
export function brief(id) {
  return id.length <= 16 ? id : `…${id.slice(-8)}`;
}

/** "max_topology_changes" → "Max topology changes". */
export function words(name) {
  const text = String(name).replaceAll(/[_-]+/g, " ").trim();
  return text.charAt(0).toUpperCase() + text.slice(1);
}
