/**
 * What the page knows of the service, kept up to date, and the commands an operator gives.
 *
 * State comes over a WebSocket; after every reconnection everything is read again, since what happened
 * meanwhile is unknown.
 *
 * @module
 */

import { phaseOf, controlsOf } from "./phase.js";
import { Store } from "./store.js";
import { Stream } from "./stream.js";

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 30_000;

const RANK = { observer: 0, operator: 1, overseer: 2 };

const FAILED = {
  start: "The run was not started",
  pause: "The run was not paused",
  resume: "The run was not resumed",
  step: "No step was made",
  stop: "The run was not stopped",
  reset: "The run was not dismissed",
};

export class Surface {
  /** `connection`: connecting, live, reconnecting, or refused (no token). `busy`: the command that waits for its answer. */
  store = new Store({
    connection: "connecting",
    retryAt: null,
    who: null,
    run: null,
    scenario: null,
    pillars: [],
    live: null,
    busy: null,
    scenarios: [],
    topology: null,
  });

  #api;
  #toasts;
  #stream = null;
  #topologyOf = null;
  #topics = new Map();
  #heard = 0; // states that have come
  #waiting = null;
  #unread = true; // the last reading failed, or there was none
  #wait = FIRST_WAIT_MS;
  #again = null;

  constructor(api, toasts) {
    this.#api = api;
    this.#toasts = toasts;
    this.on("scenarios", () => {
      this.reloadScenarios();
      this.#fetchTopology(this.#topologyOf);
    });
  }

  /** Read everything once, and follow from then on. */
  async begin() {
    await this.reload();
    this.#follow();
  }

  #follow() {
    this.#stream = new Stream({
      target: () => this.#api.stateSocket(),
      onMessage: (message) => this.#hear(message),
      onStatus: (status, detail) => this.#connection(status, detail),
      onClose: (code) => {
        if (code !== 4401 && code !== 4403) return "later";
        if (this.#api.declined) {
          this.store.set({ connection: "refused", retryAt: null });
          return "stop";
        }
        this.reload(); // asks for a token
        return "later";
      },
      probe: this.#api.healthy,
    });
  }

  /** Call `listener` when the service says that a topic (scenarios, governance, history, logs) has changed. */
  on(topic, listener) {
    this.#topics.set(topic, [...(this.#topics.get(topic) ?? []), listener]);
  }

  /** Whether the caller's role reaches this far. */
  may(role) {
    const who = this.store.get("who");
    return who !== null && RANK[who.role] >= RANK[role];
  }

  get phase() {
    return phaseOf(this.store.get("run"));
  }

  /** The controls to show, as `phase.controlsOf` has them. */
  get controls() {
    const { store } = this;
    return controlsOf(store.get("run"), {
      allowed: this.may("operator"),
      busy: store.get("busy") !== null,
      connected: store.get("connection") === "live",
    });
  }

  /** Whether this control may be used now. */
  can(name) {
    return this.controls.some((control) => control.name === name && control.enabled);
  }

  /** Give a command. One that is not allowed now sends nothing. Raises `ApiError` for `start` with details. */
  async command(name, details = null) {
    if (!this.can(name)) return false;
    return this.#give(name, details);
  }

  /** Take the last run, which has ended, from the dashboard. */
  async dismiss() {
    if (!this.may("operator") || this.store.get("busy") !== null) return false;
    return this.#give("reset", null);
  }

  async #give(name, details) {
    const run = this.store.get("run");
    const send = {
      start: () => this.#api.start(details ?? { scenario_id: this.store.get("scenario")?.id }),
      pause: () => this.#api.pause(run.run_id),
      resume: () => this.#api.resume(run.run_id),
      step: () => this.#api.step(run.run_id),
      stop: () => this.#api.stop(run.run_id),
      reset: () => this.#api.reset(),
    };
    this.store.set({ busy: name });
    const heard = this.#heard;
    try {
      const answer = await send[name]();
      // What the stream has brought meanwhile may be newer than the answer; then the next state decides.
      if (this.#heard !== heard) await this.#nextState();
      else if (name === "reset") this.#take(answer);
      else this.store.set({ run: answer });
      return true;
    } catch (error) {
      if (details !== null) throw error;
      this.#toasts.error(FAILED[name], error);
      await this.reload(); // what we showed may have been out of date
      return false;
    } finally {
      this.store.set({ busy: null });
    }
  }

  /** Read who we are, the state and the scenarios again; until it succeeds, since without it no control works. */
  async reload() {
    clearTimeout(this.#again);
    const heard = this.#heard;
    try {
      const who = await this.#api.whoami();
      const [state, scenarios] = await Promise.all([this.#api.state(), this.#api.scenarios()]);
      this.#unread = false;
      this.#wait = FIRST_WAIT_MS;
      this.store.set({ who, scenarios });
      // What the stream has brought meanwhile may be newer, and perhaps nothing comes after it.
      if (this.#heard === heard) this.#take(state);
    } catch (error) {
      const known = this.#unread && this.#wait > FIRST_WAIT_MS; // it was said
      this.#unread = true;
      // While there is no connection the rail says so, and it is read again afterwards.
      if (error.code === "unreachable") return;
      if (!known) this.#toasts.error("The state could not be read", error);
      if (error.status === 401) return; // another token is for the operator to give
      this.#again = setTimeout(() => this.reload(), this.#wait);
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
    }
  }

  async reloadScenarios() {
    try {
      this.store.set({ scenarios: await this.#api.scenarios() });
    } catch (error) {
      this.#toasts.unread("The scenarios could not be read", error);
    }
  }

  /** Set the scenario that Start takes. */
  async activate(id) {
    try {
      this.store.set({ scenario: await this.#api.activate(id) });
      this.#toasts.success(`${id} is the active scenario`);
      return true;
    } catch (error) {
      this.#toasts.error(`${id} was not made active`, error);
      return false;
    }
  }

  /** Connect anew, as somebody else. */
  restart() {
    this.#stream?.close();
    this.#follow();
  }

  /** Connect now instead of later. */
  retry() {
    this.#stream?.retry();
  }

  #connection(status, { retryAt = null }) {
    const was = this.store.get("connection");
    if (status === "live") {
      this.store.set({ connection: "live", retryAt: null });
      if (was === "reconnecting" || this.#unread) {
        this.reload();
        for (const topic of this.#topics.keys()) this.#changed(topic);
      }
    } else if (status === "waiting" || was !== "connecting") {
      this.store.set({ connection: "reconnecting", retryAt });
    }
  }

  #hear(message) {
    if (message.type === "state") this.#take(message.state);
    else if (message.type === "changed") message.topics.forEach((topic) => this.#changed(topic));
  }

  #changed(topic) {
    for (const listener of this.#topics.get(topic) ?? []) listener();
  }

  /** Wait for the next state, but not long: there may be none. */
  #nextState() {
    return new Promise((done) => {
      this.#waiting = done;
      setTimeout(done, 400);
    });
  }

  #take({ run, active_scenario: scenario, pillars, live = null }) {
    this.#heard += 1;
    this.#waiting?.();
    this.store.set({ run, scenario, pillars, live });
    const shown = run ? run.scenario_id : (scenario?.id ?? null);
    if (shown !== this.#topologyOf) this.#fetchTopology(shown);
  }

  async #fetchTopology(id) {
    this.#topologyOf = id;
    let topology = null;
    try {
      if (id !== null) topology = (await this.#api.scenario(id)).advanced?.topology ?? null;
    } catch (error) {
      if (error.status !== 404) this.#toasts.unread(`The topology of ${id} could not be read`, error);
    }
    if (this.#topologyOf === id) this.store.set({ topology });
  }
}
