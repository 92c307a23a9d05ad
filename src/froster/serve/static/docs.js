// Lists what /openapi.json describes: a section a route with a call by curl, its fields, its answers.
import { element } from "./dom.js";

const api = await (await fetch("/openapi.json")).json();

function table(head, rows) {
  const cells = (kind, texts) => element("tr", {}, texts.map((text) => element(kind, {}, [text])));
  return element("div", { class: "wide" }, [
    element("table", {}, [cells("th", head), ...rows.map((row) => cells("td", row))])]);
}

// What an answer looks like: its names, with the types for values.
function example(schema) {
  if (schema.$ref) return example(api.components.schemas[schema.$ref.split("/").pop()]);
  if (schema.anyOf) return schema.anyOf.map((each) => each.type).join(" or ");
  if (schema.type === "array") return [example(schema.items)];
  if (!schema.properties) return schema.type ?? "";
  return Object.fromEntries(Object.entries(schema.properties).map(([name, each]) => [name, example(each)]));
}

function kind(field, required) {
  const bounds = [["minimum", "at least"], ["exclusiveMinimum", "above"]];
  const said = bounds.filter(([key]) => key in field).map(([key, words]) => `${words} ${field[key]}`);
  return [field.format ?? field.type, ...said, ...(required ? ["needed"] : [])].join(", ");
}

function route(path, method, about) {
  const title = `${method.toUpperCase()} ${path}`;
  const parts = [element("h2", {}, [title]), element("p", {}, [about.description ?? ""])];
  const form = about.requestBody?.content["multipart/form-data"].schema;
  const fields = Object.entries(form?.properties ?? {});
  const examples = fields.filter(([, field]) => field.examples)
    .map(([name, field]) => `-F '${name}=${field.examples[0]}'`);
  const sent = form ? ["-F video=@holiday.mp4", ...examples]
    : method === "get" ? [] : [`-X ${method.toUpperCase()}`];
  parts.push(element("pre", {}, [["curl", ...sent, location.origin + path].join(" ")]));
  if (form) {
    parts.push(table(["field", "", "what it is"], fields.map(([name, field]) =>
      [name, kind(field, form.required?.includes(name)), field.description ?? ""])));
  }
  const answer = (about.responses[200] ?? about.responses[201])?.content?.["application/json"];
  if (answer) {
    const text = JSON.stringify(example(answer.schema), null, 2);
    parts.push(element("p", {}, ["The answer:"]), element("pre", {}, [text]));
  }
  const errors = Object.entries(about.responses).filter(([status]) => status >= "400");
  const rows = errors.map(([status, each]) => [status, each.description]);
  if (rows.length) parts.push(table(["status", "when"], rows));
  return element("section", { class: "card" }, parts);
}

for (const [path, methods] of Object.entries(api.paths)) {
  const sections = Object.entries(methods).map(([method, about]) => route(path, method, about));
  document.querySelector("#routes").append(...sections);
}
