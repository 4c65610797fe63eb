/**
 * The service's HTTP API: one method per endpoint, every failure an `ApiError`. Shapes are those of the README
 * and of `/openapi.json`; nothing else on the page knows a path.
 *
 * @module
 */

import { session } from "./remembered.js";

const PATIENCE_MS = 20_000;
const BLOB_BYTES = 8 << 20;

/** What the service answered, or why there is no answer: `code` and `field` as in the README's table of errors. */
export class ApiError extends Error {
  constructor(message, { code = "unknown", status = 0, field = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.status = status;
    this.field = field;
  }
}

const at = encodeURIComponent;

export class Api {
  #askForToken;
  #asking = null;

  /** The operator was asked for a token and gave none: nobody asks again unbidden. */
  declined = false;

  /** `askForToken(wrong)` shows the dialog and answers with a token, or null. */
  constructor({ askForToken }) {
    this.#askForToken = askForToken;
  }

  get token() {
    return session.get("token");
  }

  set token(token) {
    this.declined = false;
    session.set("token", token);
  }

  whoami = () => this.#get("/whoami");
  state = () => this.#get("/state");
  reset = () => this.#post("/state/reset");

  start = (request) => this.#post("/runs", request);
  pause = (run) => this.#post(`/runs/${at(run)}/pause`);
  resume = (run) => this.#post(`/runs/${at(run)}/resume`);
  step = (run) => this.#post(`/runs/${at(run)}/step`);
  stop = (run) => this.#post(`/runs/${at(run)}/stop`);
  pillars = (run) => this.#get(`/runs/${at(run)}/pillars`);

  scenarios = () => this.#get("/scenarios");
  scenario = (id) => this.#get(`/scenarios/${at(id)}`);
  saveScenario = (id, patch) => this.#post(`/scenarios/${at(id)}`, patch);
  activate = (id) => this.#post(`/scenarios/${at(id)}/activate`);
  clone = (id, request) => this.#post(`/scenarios/${at(id)}/clone`, request);

  governance = () => this.#get("/governance");
  governancePresets = () => this.#get("/governance/presets");
  saveGovernance = (patch) => this.#post("/governance", patch);

  /** A page of the history: `{entries, cursor}`; `cursor` is null on the last one. */
  async history(query) {
    const { value, headers } = await this.#fetch("GET", "/history", { query, withHeaders: true });
    return { entries: value, cursor: headers.get("x-next-cursor") };
  }

  /** A page of the audit, as `history`. */
  async audit(query) {
    const { value, headers } = await this.#fetch("GET", "/audit", { query, withHeaders: true });
    return { entries: value, cursor: headers.get("x-next-cursor") };
  }

  historyEntry = (run) => this.#get(`/history/${at(run)}`);
  compare = (baseline, candidate) => this.#get("/compare", { baseline, candidate });
  healthy = () =>
    this.#get("/health").then(
      () => true,
      (error) => error.status > 0,
    );

  /** Where the run's bundle is, for who needs no token. */
  exportAddress = (run) => `/history/${at(run)}/export`;

  /** The run's bundle as a Blob; `onBytes(n)` hears how much has come. */
  async exported(run, onBytes) {
    const response = await this.#send("GET", this.exportAddress(run), { patience: 0 });
    const reader = response.body.getReader();
    const blobs = []; // which the browser may keep on disk
    let parts = [];
    let [size, loose] = [0, 0];
    for (;;) {
      let chunk;
      try {
        chunk = await reader.read();
      } catch {
        throw new ApiError("the connection was lost on the way", { code: "unreachable" });
      }
      const { done, value } = chunk;
      if (done) break;
      parts.push(value);
      size += value.length;
      loose += value.length;
      if (loose >= BLOB_BYTES) {
        blobs.push(new Blob(parts));
        [parts, loose] = [[], 0];
      }
      onBytes(size);
    }
    return new Blob([...blobs, ...parts], { type: "application/zip" });
  }

  /** Where the WebSocket of this path is. The token travels as a subprotocol, never in the address. */
  #socket(path, query = {}) {
    const url = this.#url(path, query);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const token = this.token;
    // In base64url: not every token could be a subprotocol as it is.
    const encoded = token && btoa(token).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    return { url, protocols: token ? ["trinity-gate", `bearer64.${encoded}`] : ["trinity-gate"] };
  }

  stateSocket = () => this.#socket("/stream");
  logSocket = (run, since) => this.#socket(`/runs/${at(run)}/logs/stream`, { since, batch: true });

  #url(path, query) {
    const url = new URL(path, location.origin);
    for (const [name, value] of Object.entries(query)) {
      if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
    }
    return url;
  }

  #get(path, query) {
    return this.#fetch("GET", path, { query });
  }

  #post(path, body = undefined) {
    return this.#fetch("POST", path, { body });
  }

  async #fetch(method, path, { query, body, withHeaders = false }) {
    const response = await this.#send(method, path, { query, body });
    let value = null;
    try {
      const text = await response.text();
      value = text ? JSON.parse(text) : null;
    } catch (error) {
      throw new ApiError(
        `the service's answer is not readable (${error.message})`,
        { code: "bad_answer", status: response.status },
      );
    }
    return withHeaders ? { value, headers: response.headers } : value;
  }

  async #send(method, path, { query = {}, body, patience = PATIENCE_MS }) {
    const url = this.#url(path, query);
    for (;;) {
      const token = this.token;
      const headers = { accept: "application/json" };
      if (token) headers.authorization = `Bearer ${token}`;
      if (body !== undefined) headers["content-type"] = "application/json";
      let response;
      try {
        response = await fetch(url, {
          method,
          headers,
          body: body === undefined ? undefined : JSON.stringify(body),
          cache: "no-store",
          credentials: "same-origin",
          signal: patience ? AbortSignal.timeout(patience) : undefined,
        });
      } catch (error) {
        if (error.name === "TimeoutError") throw new ApiError(
          `no answer within ${patience / 1000} s`,
          { code: "timeout" },
        );
        throw new ApiError("the service does not answer", { code: "unreachable" });
      }
      if (response.ok) return response;
      if (response.status === 401 && (await this.#newToken(token))) continue;
      throw await this.#failure(response);
    }
  }

  /** Ask once, however many requests were refused meanwhile; true when there is another token to try. */
  async #newToken(refused) {
    if (this.token !== refused) return true; // somebody else was asked already
    if (this.declined) return false;
    this.#asking ??= this.#askForToken(refused !== null).finally(() => {
      this.#asking = null;
    });
    const token = await this.#asking;
    if (!token) {
      this.declined = true;
      return false;
    }
    this.token = token;
    return true;
  }

  async #failure(response) {
    try {
      const { error } = await response.json();
      return new ApiError(error.message, { code: error.code, field: error.field ?? null, status: response.status });
    } catch {
      return new ApiError(
        `the service answered ${response.status} ${response.statusText}`.trim(),
        { code: "http_error", status: response.status },
      );
    }
  }
}
