// A segment, its labels and their keys. One answer is on its way at a time.
import { ApiError, request, failure } from "./api.js";
import { clock, element, percent } from "./dom.js";

const KEYS = 9;
const part = (id) => document.getElementById(id);
const player = part("player");
let asked = null; // the segment
let labels = [];
let busy = false;
let showing = 0; // counts the questions, so that a late clip is not shown

async function json(path, body) {
  const options = body ? { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } } : {};
  const answer = await request(path, options);
  const text = await answer.text();
  if (!answer.ok) throw failure(answer.status, text);
  return JSON.parse(text);
}

async function show(question) {
  ({ segment: asked, labels } = question);
  const { labelled, skipped, left } = question;
  const order = [...labels].sort((a, b) => b.share - a.share);
  showLabels(order[0]);
  part("status").textContent = asked
    ? `${labelled} labelled, ${skipped} skipped, ${left} left. ${order.length > 1 ? `The model would say ${order[0].name}.` : ""}`
    : `No segment is left: ${labelled} are labelled, ${skipped} skipped.`;
  for (const id of ["skip", "replay"]) part(id).disabled = !asked;
  part("undo").disabled = labelled + skipped === 0;
  part("segment").textContent = asked
    ? `${asked.video}, ${clock(asked.start, asked.end)} to ${clock(asked.end, asked.end)}` : "";
  player.hidden = !asked;
  await showClip(asked, ++showing);
}

function showLabels(best) {
  const list = part("labels");
  while (list.children.length > labels.length) list.lastChild.remove();
  labels.forEach((label, place) => {
    const line = list.children[place] ?? list.appendChild(newLine(place));
    const [button] = line.children;
    button.disabled = !asked;
    const [key, name, value, rail] = button.children;
    key.textContent = place < KEYS ? place + 1 : "";
    key.hidden = place >= KEYS;
    name.textContent = label.name;
    value.textContent = `${label.count} given, ${percent(label.share)}`;
    rail.firstChild.style.width = `${100 * label.share}%`;
    button.classList.toggle("best", label === best && labels.length > 1);
  });
}

function newLine(place) {
  const rail = element("span", { class: "rail" }, [element("i")]);
  const spans = [element("span", { class: "name" }), element("span", { class: "value" })];
  const button = element("button", { type: "button" }, [element("kbd"), ...spans, rail]);
  button.addEventListener("click", () => answer("label", labels[place].name));
  return element("li", {}, [button]);
}

async function showClip(segment, number) {
  if (player.src) URL.revokeObjectURL(player.src);
  player.removeAttribute("src");
  if (!segment) return;
  const answer = await request(`/label/clip/${segment.id}`, {});
  const data = answer.ok ? await answer.blob() : await answer.text();
  if (number !== showing) return;
  if (!answer.ok) throw failure(answer.status, data);
  player.src = URL.createObjectURL(data);
  replay();
}

function replay() {
  player.currentTime = 0;
  player.play().catch(() => {}); // a browser may want a key first
}

async function attempt(work) {
  if (busy) return;
  busy = true;
  part("error").textContent = "";
  try {
    const question = await work();
    busy = false;
    await show(question);
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    part("error").textContent = error.message;
  } finally {
    busy = false;
  }
}

function answer(action, label) {
  if (!asked && action !== "undo") return;
  attempt(() => json("/label/answer", { action, segment: asked?.id ?? "", label: label ?? "" }));
}

part("skip").addEventListener("click", () => answer("skip"));
part("undo").addEventListener("click", () => answer("undo"));
part("replay").addEventListener("click", replay);
part("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const field = part("new");
  const name = field.value.trim();
  field.value = "";
  field.blur();
  if (name) answer("label", name);
});
part("new").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.target.value = "";
  event.target.blur();
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("input")) return;
  const number = Number(event.key);
  if (number >= 1 && number <= Math.min(KEYS, labels.length)) answer("label", labels[number - 1].name);
  else if (event.key === "s") answer("skip");
  else if (event.key === "u") answer("undo");
  else if (event.key === "n") part("new").focus();
  else if (event.key === " " && !event.target.matches("button")) replay();
  else return;
  event.preventDefault();
});

attempt(() => json("/label/question"));
