// Elements of HTML and SVG. Texts become text nodes, so that nothing that people write is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

export function element(name, attributes = {}, children = []) {
  return filled(document.createElement(name), attributes, children);
}

export function svg(name, attributes = {}, children = []) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

// "2.5 s" in a video of less than a minute, else "1:02" or "1:02:03".
export function clock(seconds, longest) {
  if (longest < 60) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  if (longest < 3600) return `${minutes}:${two(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}
