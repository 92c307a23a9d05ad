// The page: a video and labels in; bars, a timeline to click in and what the models look at out.
import * as api from "./api.js";
import { clock, element } from "./dom.js";
import * as draw from "./draw.js";
import { Player, Video } from "./video.js";

const $ = (id) => document.getElementById(id);
const player = new Player($("player"), $("player-note"));

const PARTS = ["scores-part", "timeline-part", "moment-part"];

let settings = null;
let video = null;
let run = null; // the AbortController of the answers that are awaited
let answers = null; // of the last run: { classified, timelines, labels, colours, at }
let looking = null; // the AbortController of the frames that are awaited

function show(id, shown) { $(id).hidden = !shown; }

function status(text) { $("status").textContent = text; }

function complain(text, where) {
  $("error").textContent = text;
  where?.focus();
}

function fail(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof api.ApiError)) console.error(error);
  complain(error.message);
  status("");
}

// A number from 0 to 1, "busy", or null.
function progress(share) {
  show("progress", share !== null);
  if (typeof share === "number") $("progress").value = share;
  else $("progress").removeAttribute("value");
  $("cancel").disabled = share === null;
}

const waiting = () => status("The server is busy; waiting for a place …");

// ---- the video

async function choose(file) {
  cancel();
  discard();
  complain("");
  const most = settings.most_megabytes;
  if (file.size > 1e6 * most) {
    complain(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB: at most ${most} MB are taken.`);
    return;
  }
  $("file-name").textContent = file.name;
  $("drop").classList.add("chosen");
  $("samples-part").open = false;
  const mine = video = new Video(file, (share) => { if (mine === video) progress(share); }, waiting);
  player.show(video);
  progress(0);
  status("Sending the video …");
  try {
    const kept = await mine.send();
    const length = clock(kept.seconds, kept.seconds);
    if (mine === video && !run) status(`Sent: ${length}, ${kept.width} × ${kept.height} pixels.`);
  } catch (error) {
    if (mine === video && !run) fail(error);
  } finally {
    if (mine === video && !run) progress(null);
  }
}

function discard() {
  video?.discard();
  video = answers = null;
  for (const part of PARTS) show(part, false);
  show("empty", true);
}

// ---- the answers

function chosenModels() {
  return [...document.querySelectorAll("#models input:checked")].map((box) => box.value);
}

async function classify() {
  stop();
  complain("");
  const labels = $("labels").value, models = chosenModels();
  if (!video) return complain("Choose a video first.", $("file"));
  if (!labels.trim()) return complain("Write some labels first.", $("labels"));
  if (!models.length) return complain("Choose a model first.", document.querySelector("#models input"));
  const mine = run = new AbortController();
  try {
    await answer(mine.signal, labels, models);
  } catch (error) {
    if (run === mine) fail(error);
  } finally {
    if (run === mine) {
      run = null;
      progress(null);
    }
  }
}

async function answer(signal, labels, models) {
  const asked = video, classified = [], timelines = [];
  if (!asked.kept) status("Sending the video …");
  await asked.send();
  for (const model of models) {
    signal.throwIfAborted();
    progress("busy");
    status(`${model} looks at the video …`);
    classified.push(await asked.ask("classify", { labels, model }, signal));
    timelines.push(await asked.ask("timeline", { labels, model }, signal));
  }
  const shown = draw.drawnLabels(classified, timelines);
  answers = { classified, timelines, labels: shown, colours: draw.palette(shown), at: 0 };
  drawAnswers();
  status(classified.map((each) => `${each.model}: ${each.answer ?? draw.NONE}`).join("; "));
  goTo(bestMoment(classified[0].label, timelines[0]));
  if (window.matchMedia("(max-width: 56rem)").matches) $("scores-part").scrollIntoView();
}

// The middle of the moment where the label has its highest score.
function bestMoment(label, { labels, times, scores, end }) {
  const column = scores.map((row) => row[labels.indexOf(label)]);
  const place = column.indexOf(Math.max(...column));
  return (times[place] + (times[place + 1] ?? end)) / 2;
}

function drawAnswers() {
  const { classified, timelines, labels, colours } = answers;
  show("empty", false);
  for (const part of PARTS) show(part, true);
  $("scores").replaceChildren(...classified.map((each) => draw.scores(each, colours)));
  const bare = classified.filter((each) => !each.calibrated).map((each) => each.model);
  $("uncalibrated").textContent = bare.length ? `Not calibrated: ${bare.join(", ")}. `
    + "The scores compare these labels alone; whether none fits is not told." : "";
  $("timelines").replaceChildren(...timelines.map((each) => draw.lanes(each, labels, colours)));
  $("film").replaceChildren();
}

// ---- the moment

const longest = () => Math.max(...answers.timelines.map((each) => each.end));

function drawMoment(at) {
  const end = longest();
  answers.at = Math.min(end, Math.max(0, at));
  $("moment-title").textContent = `At ${clock(answers.at, end)}`;
  $("moment").replaceChildren(
    ...answers.timelines.map((each) => draw.momentScores(each, answers.at, answers.colours)));
  document.querySelectorAll(".lanes").forEach((lanes, place) => {
    const timeline = answers.timelines[place];
    const length = Math.max(timeline.end - timeline.start, 1e-9);
    lanes.style.setProperty("--at", Math.min(1, Math.max(0, (answers.at - timeline.start) / length)));
    lanes.setAttribute("aria-valuenow", answers.at.toFixed(2));
    const { best } = draw.moment(timeline, answers.at);
    lanes.setAttribute("aria-valuetext", `${clock(answers.at, end)}: ${best}`);
  });
}

function goTo(at) {
  drawMoment(at);
  player.goTo(answers.at);
  look();
}

// Fetches the frames around the moment, a little later: somebody may still be on the way.
async function look() {
  looking?.abort();
  const mine = looking = new AbortController();
  await new Promise((resolve) => setTimeout(resolve, 200));
  if (mine.signal.aborted) return;
  $("film-note").textContent = "Fetching the frames …";
  try {
    const { at, classified } = answers;
    const films = [];
    for (const { model } of classified) {
      films.push(await video.ask("attention", { model, at }, mine.signal));
    }
    $("film").replaceChildren(...films.map((each) => draw.film(each, longest())));
    $("film-note").textContent = "";
  } catch (error) {
    const words = error.name === "AbortError" ? "" : `No frames: ${error.message}`;
    if (mine === looking) $("film-note").textContent = words;
  }
}

player.element.addEventListener("timeupdate", () => {
  if (answers && !player.element.paused) drawMoment(player.element.currentTime);
});
for (const name of ["pause", "seeked"]) {
  player.element.addEventListener(name, () => {
    const { paused, currentTime } = player.element;
    if (!answers || !paused || Math.abs(currentTime - answers.at) < 0.05) return;
    drawMoment(currentTime);
    look();
  });
}

$("timelines").addEventListener("pointerdown", (event) => {
  const track = event.target.closest(".track");
  if (!track || event.button) return;
  const { start, end } = timelineOf(track), box = track.getBoundingClientRect();
  const to = (x) => goTo(start + Math.min(1, Math.max(0, (x - box.left) / box.width)) * (end - start));
  const move = (dragged) => to(dragged.clientX);
  track.setPointerCapture(event.pointerId);
  track.addEventListener("pointermove", move);
  const release = () => track.removeEventListener("pointermove", move);
  track.addEventListener("lostpointercapture", release, { once: true });
  to(event.clientX);
});

$("timelines").addEventListener("keydown", (event) => {
  const lanes = event.target.closest(".lanes");
  if (!lanes) return;
  const { start, end, stride } = timelineOf(lanes);
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5 };
  const ends = { Home: start, End: end };
  const at = ends[event.key] ?? answers.at + steps[event.key] * stride;
  if (Number.isNaN(at)) return;
  event.preventDefault();
  goTo(Math.min(end, Math.max(start, at)));
});

$("timelines").addEventListener("click", (event) => {
  const button = event.target.closest("[data-second]");
  if (button) goTo(Number(button.dataset.second));
});

function timelineOf(node) {
  return answers.timelines[[...document.querySelectorAll(".timeline")].indexOf(node.closest(".timeline"))];
}

// ---- the form

// Ends what is asked of the models; a video that is on its way goes on.
function stop() {
  run?.abort();
  looking?.abort();
  run = looking = null;
}

function cancel() {
  stop();
  if ($("cancel").disabled) return;
  video?.cancelSending();
  progress(null);
  status("Cancelled.");
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  classify();
});
$("cancel").addEventListener("click", () => {
  cancel();
  $("go").focus();
});
$("file").addEventListener("change", (event) => {
  if (event.target.files.length) choose(event.target.files[0]);
});
$("attention").addEventListener("change", (event) => {
  $("film").classList.toggle("bare", !event.target.checked);
});
$("labels").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) classify();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") cancel();
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  if (settings && event.dataTransfer.files.length) choose(event.dataTransfer.files[0]);
});
window.addEventListener("pagehide", () => video?.discard());

// ---- what this server serves

function addSamples(samples) {
  show("samples-part", samples.length > 0);
  $("samples").replaceChildren(...samples.map((sample, place) => {
    const button = element("button", { type: "button", title: sample.name }, [
      element("img", { src: sample.thumbnail, alt: "" }), element("span", {}, [sample.name])]);
    button.addEventListener("click", () => pick(sample, place));
    return element("li", {}, [button]);
  }));
}

// A sample goes the way of every file; its labels are put before those that are written.
async function pick(sample, place) {
  try {
    const data = await api.blob(`/page/samples/${place}`, new AbortController().signal, waiting);
    choose(new File([data], sample.file, { type: data.type })); // classify waits until it is sent
    const written = $("labels").value.split("\n").map((line) => line.trim()).filter(Boolean);
    $("labels").value = [...new Set([...sample.labels, ...written])].join("\n");
    await classify();
  } catch (error) {
    fail(error);
  }
}

function addModels(models) {
  show("models-part", models.length > 1);
  $("models").replaceChildren(...models.map((name) => element("label", { class: "check" }, [
    element("input", { type: "checkbox", value: name, checked: true }), ` ${name}`])));
}

async function start() {
  settings = await api.settings();
  const { models, methods, device, rendered_only, most_megabytes, most_seconds, most_labels } = settings;
  const served = models.map((name, place) => `${name} (${methods[place]})`);
  $("served").textContent = `${served.join(" and ")}, on ${device}.`;
  show("rendered", rendered_only.length > 0);
  $("rendered").textContent = `${rendered_only.join(" and ")} can tell rendered things only: `
    + "real videos need a real model.";
  $("file-note").textContent = `At most ${most_megabytes} MB and ${clock(most_seconds, most_seconds)}`;
  $("labels-note").textContent = `At most ${most_labels}; or between commas on one line`;
  if (!$("labels").value) $("labels").value = settings.labels.join("\n");
  addModels(models);
  addSamples(settings.samples);
}

start().catch(fail);
