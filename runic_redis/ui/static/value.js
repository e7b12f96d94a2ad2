// A value, as a tree or as JSON. What JSON has no form for comes as an object with one name that begins with a dollar sign.

import { copy, el, number, to } from "./dom.js";

// So many parts of a list are shown, and so many more each time.
const STEP = 100;
// What has more parts is closed at first, unless it is the whole value.
const FEW = 20;
const FORMS = { $bytes: "bytes", $datetime: "datetime", $date: "date", $time: "time", $duration: "duration", $decimal: "decimal", $uuid: "uuid", $deep: "too deep to show", $long: "too long to show, in characters about" };
const LISTS = { $tuple: "tuple", $set: "set", $frozenset: "frozenset" };

/** A section with a value: a tree, and its JSON to the last digit. */
export function valueSection(name, { value, json, length }) {
  if (!json) return [el("div", { class: "section" }, el("h3", null, name)), el("p", { class: "muted" }, `About ${number(length)} characters: too long to be shown here. The command line prints it.`)];
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

/** A value as nested lists. */
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
  // What is closed is made only when somebody opens it: values may be large.
  const details = el("details", { open: Boolean(opened), toggle: () => { if (details.open && !shown) grow(); } }, el("summary", { class: "kind" }, `${kind}, ${number(parts.length)}`), list);
  if (opened) grow();
  return details;
}
