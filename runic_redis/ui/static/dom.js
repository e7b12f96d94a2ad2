// Make elements, and format numbers and times. Text stays text: nothing here takes HTML.

const SVG = new Set(["svg", "path", "rect", "line", "g", "text", "title", "defs", "pattern"]);

/** Make an element. A function as an attribute's value is a listener; `style` takes CSS properties by name; null and false are left out. */
export function el(tag, attributes, ...children) {
  const made = SVG.has(tag) ? svgElement(tag) : document.createElement(tag);
  return fill(made, attributes, children);
}

/** Make a link within a drawing. */
export const svgLink = (attributes, ...children) => fill(svgElement("a"), attributes, children);

const svgElement = (tag) => document.createElementNS("http://www.w3.org/2000/svg", tag);

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name, value);
    else if (name === "style") for (const [property, part] of Object.entries(value)) made.style.setProperty(property, part);
    else made.setAttribute(name, value === true ? "" : name === "title" ? visible(value, true) : value);
  }
  const lines = made.localName === "pre" || made.localName === "title";
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false).map((child) => visible(child, lines)));
  return made;
}

// Characters that could hide text or change how it reads: control characters, characters without width or that turn
// the direction of writing, separators, unusual spaces, and lone surrogates.
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;
const escape = (one) => one.replace(/[^]/g, (unit) => "\\u" + unit.charCodeAt(0).toString(16).padStart(4, "0"));
/** Escape the invisible characters of a text; with `lines`, keep the ends of lines. Other values stay as they are. */
export const visible = (text, lines = false) => (typeof text === "string" ? text.replace(UNSEEN, (one) => (lines && one === "\n" ? one : escape(one))) : text);

/** The address of a view, from its parts. */
export const to = (...parts) => "#/" + parts.map((part) => encodeURIComponent(part)).join("/");

const HUES = 18;
const TONES = 3;
/** The colour of an event type, as a style. It depends on the name alone (FNV-1a), so it is the same in every view, tab and visit. */
export function colourOf(type) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(type)) hash = Math.imul(hash ^ byte, 0x01000193);
  const slot = (hash >>> 0) % (HUES * TONES);
  return { "--hue": (slot % HUES) * (360 / HUES), "--tone": Math.floor(slot / HUES) - 1 };
}

export const typeLabel = (type) => el("span", { class: "type", style: colourOf(type), title: type }, el("i"), type);

/** Make a list to choose from; `choices` are pairs of a value and its text. */
export function choice(label, choices, chosen, change) {
  const select = el("select", { "aria-label": label, change: () => change(select.value) });
  offer(select, choices, chosen);
  return select;
}

/** Replace the choices of a list. */
export function offer(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) => el("option", { value }, text)));
  select.value = chosen;
}

/** The time so many hours ago, as ISO 8601. */
export const sinceTime = (hours) => new Date(Date.now() - hours * 3_600_000).toISOString();

export const problemText = (text) => el("p", { class: "problem" }, text);

export const number = (value) => value.toLocaleString("en");

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
export function bytes(size) {
  let unit = 0;
  for (; size >= 1024 && unit < UNITS.length - 1; unit++) size /= 1024;
  return `${unit ? size.toFixed(1) : size} ${UNITS[unit]}`;
}

const absolute = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
/** The date and the time of day. */
export const dated = (text) => absolute.format(Date.parse(text));
export function ago(text) {
  const seconds = (Date.now() - Date.parse(text)) / 1000;
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].find(([size]) => Math.abs(seconds) >= size) || [1, "s"];
  const count = Math.floor(Math.abs(seconds) / size);
  if (!count) return "now";
  return seconds > 0 ? `${count} ${unit} ago` : `in ${count} ${unit}`;
}

/** Make a time: how long ago, kept up to date, with the date as its title; with `exact`, the date. */
export function time(text, { exact = false } = {}) {
  if (!text) return null;
  const full = dated(text);
  return exact ? el("time", { datetime: text, title: text }, full) : el("time", { datetime: text, title: full, "data-ago": true }, ago(text));
}
setInterval(() => {
  for (const one of document.querySelectorAll("time[data-ago]")) {
    const now = ago(one.dateTime);
    if (one.textContent !== now) one.textContent = now;
  }
}, 1000);

export const about = (...rows) =>
  el("dl", { class: "about" }, rows.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "").map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value))));

/** Draw how many events were appended in each second. */
export function drawRate(svg, history, height) {
  const top = Math.max(1, ...history);
  const width = 120;
  const points = history.map((value, second) => `${((second * width) / (history.length - 1)).toFixed(1)},${(height - 2 - (value / top) * (height - 4)).toFixed(1)}`);
  svg.replaceChildren(
    el("path", { class: "area", d: `M0,${height} L${points.join(" L")} L${width},${height} Z` }),
    el("path", { class: "curve", d: `M${points.join(" L")}` }),
  );
}

export async function copy(text, button) {
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed";
  }
  setTimeout(() => { button.textContent = said; }, 1200);
}
