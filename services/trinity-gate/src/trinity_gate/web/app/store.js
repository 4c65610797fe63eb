/** The page's state: one plain object, told about when it changes. @module */

export class Store {
  #values;
  #listeners = new Set();
  #changed = new Set();

  constructor(values) {
    this.#values = { ...values };
  }

  get(name) {
    return this.#values[name];
  }

  /** Take over `patch`; listeners hear of it once per turn of the event loop, however many changes it brought. */
  set(patch) {
    for (const [name, value] of Object.entries(patch)) {
      if (Object.is(this.#values[name], value)) continue;
      this.#values[name] = value;
      if (this.#changed.size === 0) queueMicrotask(() => this.#tell());
      this.#changed.add(name);
    }
  }

  /** Call `listener` now, and again whenever one of `names` has changed. */
  watch(names, listener) {
    const entry = { names, listener };
    this.#listeners.add(entry);
    listener();
    return () => this.#listeners.delete(entry);
  }

  #tell() {
    const changed = this.#changed;
    this.#changed = new Set();
    for (const { names, listener } of this.#listeners) if (names.some((name) => changed.has(name))) listener();
  }
}
