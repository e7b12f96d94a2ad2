// A value, as a tree or as JSON. A value that JSON cannot hold arrives as an object with one name that begins with a dollar sign.

import { copy, el, number, to } from "./dom.js";

// Show this many parts of a list, and this many more at each press of the button.
const STEP = 100;
// A part of a value with more parts than this is closed at first.
const FEW = 20;
const FORMS = { $bytes: "bytes", $datetime: "datetime", $date: "date", $time: "time", $duration: "duration", $decimal: "decimal", $uuid: "uuid", $deep: "too deep to show" };
const LISTS = { $tuple: "tuple", $set: "set", $frozenset: "frozenset" };

/** Make a section that shows a value as a tree or as JSON to the last digit. */
export function valueSection(name, { value, json, length }) {
  if (!json) return [el("div", { class: "section" }, el("h3", null, name)), el("p", { class: "muted" }, `The value is too long to show here: about ${number(length)} characters. Print it with the command line.`)];
  const body = el("div");
  const tabs = ["Tree", "JSON"].map((label) => el("button", { type: "button", click: () => show(label) }, label));
  const show = (label) => {
    tabs.forEach((tab) => tab.setAttribute("aria-pressed", String(tab.textContent === label)));
    body.replaceChildren(label === "JSON" ? el("pre", null, json) : el("div", { class: "tree" }, tree(value, "whole")));
  };
  show("Tree");
  const copied = el("button", { type: "button", class: "end", click: () => copy(json, copied) }, "Copy");
  return [el("div", { class: "section" }, el("h3", null, name), el("div", { class: "tabs" }, tabs), copied), body];
}

/** Make nested lists of a value. */
function tree(value, open = "") {
  if (value === null) return el("span", { class: "k" }, "null");
  if (typeof value === "string") return el("span", { class: "s" }, JSON.stringify(value));
  if (typeof value === "number") return el("span", { class: "n" }, String(value));
  if (typeof value === "boolean") return el("span", { class: "k" }, String(value));
  if (Array.isArray(value)) return branch(value.map((part, at) => [String(at), part]), "list", open);
  const names = Object.keys(value);
  if (names[0] === "$object") return branch(Object.entries(value.fields), value.version > 1 ? `${value.$object} v${value.version}` : value.$object, open);
  if (names.length === 1 && names[0].startsWith("$")) return special(names[0], value[names[0]], open);
  return branch(Object.entries(value), "dict", open);
}

function special(form, value, open) {
  if (form === "$fact") return el("a", { href: to("f", value) }, `fact ${value}`);
  if (form === "$map") return branch(value.map(([key, part]) => [key, part]), "dict", open);
  if (form in LISTS) return branch(value.map((part, at) => [String(at), part]), LISTS[form], open);
  const said = form === "$duration" ? `${value[0]} d ${value[1]} s ${value[2]} µs` : typeof value === "boolean" ? "" : String(value);
  // Numbers that JavaScript would write in another way come as text.
  if (form === "$float" || form === "$int") return el("span", { class: "n" }, value);
  return [el("span", { class: "kind" }, `${FORMS[form] || form.slice(1)} `), el("span", { class: "n" }, said)];
}

function branch(parts, kind, open) {
  if (!parts.length) return el("span", { class: "kind" }, `${kind}, empty`);
  const list = el("ul");
  const opened = open === "whole" || (open && parts.length <= FEW);
  let shown = 0;
  const more = el("button", { type: "button", click: () => grow() }, "More");
  const grow = () => {
    more.remove();
    for (const [key, part] of parts.slice(shown, shown + STEP)) list.append(el("li", null, el("span", { class: "key" }, typeof key === "string" ? key : tree(key)), ": ", tree(part, parts.length <= FEW ? "few" : "")));
    shown += STEP;
    if (shown < parts.length) list.append(more);
  };
  // Values may be large, so a closed part is made when it is opened.
  const details = el("details", { open: Boolean(opened), toggle: () => { if (details.open && !shown) grow(); } }, el("summary", { class: "kind" }, `${kind}, ${number(parts.length)}`), list);
  if (opened) grow();
  return details;
}
