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

function failure(status, text) {
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
    signal.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
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

async function request(path, options) {
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

// A question about a kept video: `route` is classify, timeline or attention.
export async function ask(route, fields, signal, waiting) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.set(name, value);
  const answer = await patiently(async () => {
    const response = await request(`/v1/${route}`, { method: "POST", body: form, signal });
    return { status: response.status, retryAfter: response.headers.get("Retry-After"), text: await response.text() };
  }, signal, waiting);
  if (answer.status !== 200) throw failure(answer.status, answer.text);
  return JSON.parse(answer.text);
}

export async function blob(path, signal, waiting) {
  const answer = await patiently(async () => {
    const response = await request(path, { signal });
    return { status: response.status, retryAfter: response.headers.get("Retry-After"), response };
  }, signal, waiting);
  if (answer.status !== 200) throw failure(answer.status, await answer.response.text());
  return answer.response.blob();
}

// XMLHttpRequest, because fetch does not tell how much of an upload has gone.
function send(file, signal, progress) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    const form = new FormData();
    form.set("video", file, "video");
    call.upload.onprogress = (event) => progress(event.loaded / event.total);
    call.onload = () => resolve({ status: call.status, retryAfter: call.getResponseHeader("Retry-After"), text: call.responseText });
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
  if (answer.status !== 201) throw failure(answer.status, answer.text);
  return JSON.parse(answer.text);
}

// Also while the page is being closed.
export function forget(id) {
  fetch(`/v1/videos/${id}`, { method: "DELETE", keepalive: true }).catch(() => {});
}
