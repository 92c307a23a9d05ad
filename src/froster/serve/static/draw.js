// What the answers look like: bars, timelines, the frames of a moment. Each function gives a new element.
import { clock, element, percent, svg } from "./dom.js";

export const NONE = "none of these";
const SHOWN = 8; // labels that are drawn; the others are counted
const COLOURS = 6;
const COLUMNS = 240; // of a timeline: more would be narrower than a pixel

// The labels in the order in which they are drawn: those that win somewhere, by the time for which
// they do, then the likeliest.
export function drawnLabels(answers, timelines) {
  const seconds = new Map();
  for (const { start, end, label } of timelines.flatMap((each) => each.segments)) {
    seconds.set(label, (seconds.get(label) ?? 0) + end - start);
  }
  const winners = [...seconds.keys()].sort((a, b) => seconds.get(b) - seconds.get(a));
  const likely = answers.flatMap((each) => each.scores.map((score) => score.label));
  return [...new Set([...winners, ...likely])].slice(0, SHOWN);
}

// The same colour for a label everywhere; grey for "none of these" and where there are no more colours.
export function palette(labels) {
  const named = labels.filter((label) => label !== NONE).slice(0, COLOURS);
  return new Map(named.map((label, place) => [label, `var(--label-${place + 1})`]));
}

function coloured(node, label, colours) {
  node.style.setProperty("--colour", colours.get(label) ?? "var(--label-other)");
  return node;
}

// Rows [label, share], likeliest first, with the answer marked.
function bars(rows, best, colours) {
  const shown = rows.sort((a, b) => b[1] - a[1]).slice(0, SHOWN);
  const list = element("ol", { class: "bars" }, shown.map(([label, share]) => {
    const fill = coloured(element("i"), label, colours);
    fill.style.width = `${100 * share}%`;
    const mark = element("span", { class: "mark", role: "img", "aria-label": "the answer: " }, ["✓ "]);
    return element("li", { class: label === best ? "best" : undefined }, [
      element("span", { class: "name", title: label }, label === best ? [mark, label] : [label]),
      element("span", { class: "value" }, [percent(share)]),
      element("span", { class: "rail", "aria-hidden": "true" }, [fill]),
    ]);
  }));
  const more = rows.length - shown.length;
  return more > 0 ? [list, element("p", { class: "note" }, [`and ${more} more`])] : [list];
}

function column(name, children) {
  return element("section", { class: "column", "aria-label": name }, [element("h3", {}, [name]), ...children]);
}

export function scores(answer, colours) {
  const rows = answer.scores.map(({ label, probability }) => [label, probability]);
  if (answer.none !== null) rows.push([NONE, answer.none]);
  const parts = bars(rows, answer.answer ?? NONE, colours);
  if (answer.none === null && answer.cosine !== null) {
    parts.push(element("p", { class: "note" }, [`cosine of the best label ${answer.cosine.toFixed(3)}`]));
  }
  return column(answer.model, parts);
}

export function momentIndex(timeline, at) {
  const index = Math.floor((at - timeline.start) / timeline.stride);
  return Math.min(timeline.times.length - 1, Math.max(0, index));
}

// The answer of a moment, with what it is made of.
export function moment(timeline, at) {
  const row = timeline.scores[momentIndex(timeline, at)];
  const rows = timeline.labels.map((label, place) => [label, row[place]]);
  return { rows, best: winner(timeline, at) };
}

function winner(timeline, at) {
  const inside = timeline.segments.find(({ start, end }) => start <= at && at < end);
  return (inside ?? timeline.segments.at(-1))?.label;
}

export function momentScores(timeline, at, colours) {
  const { rows, best } = moment(timeline, at);
  return column(timeline.model, bars(rows, best, colours));
}

// A lane a label: the higher the column, the higher the score; in the label's colour where it is the best.
export function lanes(timeline, labels, colours) {
  const { start, end } = timeline;
  const drawn = labels.filter((label) => timeline.labels.includes(label));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const tick = element("span", {}, [clock(start + share * (end - start), end)]);
    tick.style.left = `${100 * share}%`;
    return tick;
  });
  const slider = element("div", {
    class: "lanes", role: "slider", tabindex: "0", "aria-label": `Timeline of ${timeline.model}`,
    "aria-valuemin": start, "aria-valuemax": end,
  }, [
    ...drawn.map((label) => lane(timeline, label, colours)),
    element("div", { class: "lane", "aria-hidden": "true" }, [
      element("span"), element("span", { class: "ticks" }, ticks)]),
  ]);
  return element("section", { class: "timeline" }, [
    element("h3", {}, [timeline.model]), slider, segments(timeline)]);
}

function lane(timeline, label, colours) {
  const { start, end, times } = timeline;
  const length = Math.max(end - start, 1e-9);
  const place = timeline.labels.indexOf(label);
  const every = Math.ceil(times.length / COLUMNS);
  const columns = [];
  for (let first = 0; first < times.length; first += every) {
    const until = times[first + every] ?? end;
    const group = timeline.scores.slice(first, first + every).map((row) => row[place]);
    const score = group.reduce((sum, each) => sum + each, 0) / group.length;
    columns.push(svg("rect", {
      x: (times[first] - start) / length, width: (until - times[first]) / length,
      y: 1 - score, height: score,
      class: winner(timeline, (times[first] + until) / 2) === label ? "wins" : undefined,
    }));
  }
  const stretched = { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" };
  const chart = svg("svg", stretched, columns);
  return element("div", { class: "lane" }, [
    element("span", { class: "name", title: label }, [label]),
    element("span", { class: "track" }, [coloured(chart, label, colours)]),
  ]);
}

// The same in words; each line is a button that goes there.
function segments({ segments, end }) {
  const rows = segments.map((each) => element("li", {}, [
    element("button", { type: "button", class: "plain", "data-second": (each.start + each.end) / 2 }, [
      element("span", { class: "span" }, [`${clock(each.start, end)} – ${clock(each.end, end)}`]),
      element("span", { class: "name" }, [each.label]),
      element("span", { class: "value" }, [percent(each.score)]),
    ])]));
  const title = `${segments.length} ${segments.length === 1 ? "segment" : "segments"} as a list`;
  return element("details", {}, [
    element("summary", {}, [title]), element("ol", { class: "segments" }, rows)]);
}

// The frames of a moment, the brighter the more the model looks there; one scale for all of them.
export function film(answer, longest) {
  const heat = answer.attention;
  const values = heat?.flat(2).sort((a, b) => a - b);
  const least = values?.[0];
  // A few patches can take most of the attention: they would leave everything else dark.
  const most = values?.[Math.floor(0.995 * (values.length - 1))];
  const figures = answer.frames.map((source, place) => {
    const time = clock(answer.seconds[place], longest);
    const words = heat ? `; the model looks most at the ${peak(heat[place])}` : "";
    const shown = [element("img", { src: source, alt: `Frame at ${time}${words}` })];
    if (heat) shown.push(overlay(heat[place], least, most));
    return element("figure", {}, [
      element("div", { class: "frame" }, shown), element("figcaption", {}, [time])]);
  });
  const note = heat ? "" : "This model attends in a way of its own, which cannot be shown.";
  return column(answer.model, [
    element("div", { class: "film" }, figures), element("p", { class: "note" }, [note])]);
}

// Matplotlib's inferno, from which 0 is cut off.
const HEAT = [[40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21],
  [250, 193, 39], [252, 255, 164]];

function overlay(rows, least, most) {
  const size = { width: rows[0].length, height: rows.length };
  const canvas = element("canvas", { ...size, "aria-hidden": "true" });
  const pixels = new ImageData(canvas.width, canvas.height);
  rows.flat().forEach((value, place) => {
    const share = Math.min(1, Math.max(0, (value - least) / Math.max(most - least, 1e-12)));
    const step = Math.min(HEAT.length - 2, Math.floor(share * (HEAT.length - 1)));
    const between = share * (HEAT.length - 1) - step;
    const colour = HEAT[step].map((from, part) => from + between * (HEAT[step + 1][part] - from));
    pixels.data.set([...colour, 255 * (0.25 + 0.6 * share)], 4 * place);
  });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

// Where the highest of these values lies, in words.
function peak(rows) {
  const values = rows.flat();
  const place = values.indexOf(Math.max(...values));
  const third = (index, count) => Math.min(2, Math.floor(3 * (index + 0.5) / count));
  const vertical = ["upper", "", "lower"][third(Math.floor(place / rows[0].length), rows.length)];
  const horizontal = ["left", "", "right"][third(place % rows[0].length, rows[0].length)];
  return [vertical, horizontal].filter(Boolean).join(" ") || "middle";
}
