// The server's HTTP API: requests, errors in plain words, the stream of a job's events.

const kSilence = 45000;  // ms; the server says something every 15 s

export class ApiError extends Error {
  constructor(status, code, message, field = null, retryAfter = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.field = field;
    this.retryAfter = retryAfter;
  }

  /// Whether the same request may succeed later: the server is busy, or was not reached.
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

async function failure(answer) {
  let told = {};
  try {
    told = (await answer.json()).error ?? {};
  } catch {
    // Not JSON: something between us and the server answered.
  }
  const wait = Number.parseFloat(answer.headers.get("Retry-After") ?? "");
  const error = new ApiError(answer.status, String(told.code ?? "http_error"),
                             String(told.message ?? `The server answered with status ${answer.status}.`),
                             told.field === undefined ? null : String(told.field), Number.isFinite(wait) ? wait : null);
  if (answer.status === 401) window.dispatchEvent(new CustomEvent("mdm:signed-out"));
  return error;
}

async function send(path, options) {
  try {
    return await fetch(path, {credentials: "same-origin", cache: "no-store", redirect: "error", ...options});
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server can't be reached.");
  }
}

export async function call(method, path, body, signal) {
  const options = {method, signal, headers: {Accept: "application/json"}};
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await send(path, options);
  if (!answer.ok) throw await failure(answer);
  if (answer.status === 204) return null;
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "The server's answer broke off.");
  }
}

// One event of a stream from its lines; null for a comment.
function parseEvent(lines) {
  const event = {id: null, kind: "message", data: ""};
  const data = [];
  for (const line of lines) {
    if (line.startsWith(":")) continue;
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") event.id = value;
    else if (name === "event") event.kind = value;
    else if (name === "data") data.push(value);
  }
  if (data.length === 0) return null;
  event.data = data.join("\n");
  return event;
}

// Reads events until the server ends the stream. EventSource is not used: it hides the status of an error.
async function* readEvents(path, lastId, signal, heard) {
  const headers = {Accept: "text/event-stream"};
  if (lastId !== null) headers["Last-Event-ID"] = lastId;
  const answer = await send(path, {headers, signal});
  if (!answer.ok) throw await failure(answer);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let lines = [];
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    heard();
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) {
      const line = part.endsWith("\r") ? part.slice(0, -1) : part;
      if (line !== "") {
        lines.push(line);
        continue;
      }
      const event = parseEvent(lines);
      lines = [];
      if (event !== null) yield event;
    }
  }
}

function pause(ms, signal) {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, {once: true});
  });
}

/// States in which nothing more happens to a job; "gone" is the page's own word: the server has forgotten it.
export const kFinished = ["done", "failed", "cancelled", "gone"];

// One connection's worth of events. Answers whether the job has ended.
async function follow(id, watch, handlers, signal) {
  const connection = new AbortController();
  const stop = () => connection.abort();
  signal.addEventListener("abort", stop, {once: true});
  let timer = setTimeout(stop, kSilence);
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(stop, kSilence);
    watch.failures = 0;
    handlers.connection(true);
  };
  try {
    for await (const event of readEvents(`/mdm/v1/jobs/${id}/events`, watch.lastId, connection.signal, heard)) {
      if (signal.aborted) return true;
      if (event.id !== null) watch.lastId = event.id;
      const data = JSON.parse(event.data);
      handlers[event.kind]?.(data);
      if (event.kind === "state" && kFinished.includes(data.state)) return true;
    }
    return false;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    connection.abort();
  }
}

/// Follows a job until it ends, through lost connections. handlers: state(job), progress(data), preview(data),
/// connection(up), gone(error). Answers a function that stops following.
export function watchJob(id, handlers) {
  const stopped = new AbortController();
  const signal = stopped.signal;
  const watch = {lastId: null, failures: 0};
  (async () => {
    while (!signal.aborted) {
      try {
        if (await follow(id, watch, handlers, signal)) return;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ApiError && !error.passing) {
          handlers.gone(error);
          return;
        }
      }
      if (signal.aborted) return;
      handlers.connection(false);
      const wait = Math.min(10000, 500 * 2 ** watch.failures) * (0.75 + Math.random() / 2);
      watch.failures += 1;
      await pause(wait, signal);
    }
  })();
  return () => stopped.abort();
}
