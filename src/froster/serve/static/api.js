// The server's API. Whatever goes wrong is an Error whose message is one sentence for people.

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const OFFLINE = "The server does not answer. Does it still run?";

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

export function failure(status, text) {
  if (status === 401) return new ApiError("The server asks for its token again: reload this page.", status);
  if (status === 0) return new ApiError(OFFLINE, status);
  let error = "";
  try {
    error = JSON.parse(text).error;
  } catch { /* not the server's own words */ }
  return new ApiError(error ? sentence(error) : `The server answered with status ${status}.`, status);
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    signal.addEventListener("abort", stop, { once: true });
  });
}

// Tries again while the server has no room, and says so.
async function patiently(attempt, signal, waiting) {
  for (;;) {
    const answer = await attempt();
    if (answer.status !== 429) return answer;
    waiting();
    await pause(Number(answer.retryAfter) || 5, signal);
  }
}

export async function request(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (options.signal?.aborted) throw options.signal.reason;
    throw new ApiError(OFFLINE, 0);
  }
}

export async function settings() {
  const answer = await request("/page/settings", {});
  if (!answer.ok) throw failure(answer.status, await answer.text());
  return answer.json();
}

const answered = ({ status, headers }, body) => ({ status, body, retryAfter: headers.get("Retry-After") });

// A question about a kept video: `route` is classify, timeline or attention.
export async function ask(route, fields, signal, waiting) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.set(name, value);
  const answer = await patiently(async () => {
    const response = await request(`/v1/${route}`, { method: "POST", body: form, signal });
    return answered(response, await response.text());
  }, signal, waiting);
  if (answer.status !== 200) throw failure(answer.status, answer.body);
  return JSON.parse(answer.body);
}

export async function blob(path, signal, waiting) {
  const answer = await patiently(async () => {
    const response = await request(path, { signal });
    return answered(response, await response.blob());
  }, signal, waiting);
  if (answer.status !== 200) throw failure(answer.status, await answer.body.text());
  return answer.body;
}

// XMLHttpRequest, because fetch does not tell how much of an upload has gone.
function send(file, signal, progress) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    const form = new FormData();
    form.set("video", file, "video");
    call.upload.onprogress = (event) => progress(event.loaded / event.total);
    call.onload = () => {
      const retryAfter = call.getResponseHeader("Retry-After");
      resolve({ status: call.status, body: call.responseText, retryAfter });
    };
    call.onerror = () => reject(new ApiError(OFFLINE, 0));
    call.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => call.abort(), { once: true });
    call.open("POST", "/v1/videos");
    call.send(form);
  });
}

export async function upload(file, signal, progress, waiting) {
  signal.throwIfAborted();
  const answer = await patiently(() => send(file, signal, progress), signal, waiting);
  if (answer.status !== 201) throw failure(answer.status, answer.body);
  return JSON.parse(answer.body);
}

// Also while the page is being closed.
export function forget(id) {
  fetch(`/v1/videos/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}
