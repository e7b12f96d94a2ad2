// One workflow: its time line, and the graph of its facts.

import { about, bytes, choice, colourOf, copy, dated, el, number, offer, problemText, time, to, typeLabel } from "./dom.js";
import { drawGraph } from "./graph.js";
import { valueSection } from "./value.js";
import { due, state } from "./workflows.js";

const PAGE = 100;

/** Show a workflow's id, its state and its views. Return its description, and the place for the view. */
export async function showHead(main, app, id, view) {
  const one = await app.get(`api/workflow?${new URLSearchParams({ id })}`);
  const copied = el("button", { type: "button", click: () => copy(id, copied) }, "Copy id");
  const tab = (name, label, href) => el("a", { href, "aria-current": name === view ? "page" : null }, label);
  const facts = el("div");
  main.replaceChildren(
    el("a", { class: "crumb", href: "#/" }, "‹ Workflows"),
    el("div", { class: "head" }, el("h1", null, id), el("span", { id: "state" }, state(one)), copied,
      el("nav", { class: "tabs", "aria-label": "Views" }, tab("line", "Time line", to("w", id)), tab("facts", "Facts", to("w", id, "facts")), (one.is_thread || view === "checkpoints") && tab("checkpoints", "Checkpoints", to("w", id, "checkpoints")))),
    facts);
  return [one, facts];
}

function aboutWorkflow(one, memory) {
  const lease = one.lease_owner && el("span", null, one.lease_owner, ", until ", time(one.lease_until));
  return about(
    ["Events", number(one.cursor)],
    ["Entries", number(one.entries)],
    ["Snapshot", one.snapshot_cursor !== null && el("span", null, `at ${number(one.snapshot_cursor)}, ${bytes(one.snapshot_bytes)}, `, time(one.snapshot_time))],
    ["Trimmed to", one.trimmed ? number(one.trimmed) : ""],
    ["Facts", one.facts ? el("a", { href: to("w", one.workflow_id, "facts") }, number(one.facts)) : ""],
    ["Log", one.log_bytes ? bytes(one.log_bytes) : ""],
    ["Queue", one.queue],
    ["Due", due(one)],
    ["Lease", lease],
    ["Attempts", one.attempts ? number(one.attempts) : ""],
    ["Parked", one.parked && el("span", null, time(one.parked), `: ${one.parked_reason ?? ""}`)],
    ["Timer", one.timer !== null && el("span", null, one.timer || "unnamed", ...(one.timer_until ? [", until ", time(one.timer_until)] : []))],
    ["Messages", one.inbox ? number(one.inbox) : ""],
    ["Attributes", Object.entries(one.attributes).map(([name, value]) => `${name}=${value}`).join(", ")],
    ["Parent", one.parent !== null && el("a", { href: to("w", one.parent) }, one.parent)],
    ["Created", time(one.created)],
    ["Last write", time(one.written)],
    ["Completed", time(one.completed)],
    ["Expires", one.expires && el("span", null, time(one.expires), one.sliding_s === null ? "" : `, ${number(one.sliding_s)} s after the last write`)],
    ["Memory", memory],
    ["Damaged", one.damaged.join("; ")],
  );
}

/** Show a workflow's time line, around an event if one is named. */
export async function showLine(main, app, id, query, cursor) {
  const [one, place] = await showHead(main, app, id, "line");
  const at = (parts) => {
    const query = new URLSearchParams(Object.entries(parts).filter(([, value]) => value !== ""));
    return query.size ? `${to("w", id)}?${query}` : to("w", id);
  };
  const memory = el("span", null, "…");
  const facts = el("div", { class: "card" });
  const strip = el("div", { class: "card strip", hidden: true });
  const more = el("button", { type: "button", class: "more", hidden: true, click: () => app.go(to("w", id)) });
  const line = el("div", { class: "card line" });
  const filters = { type: query.get("type") || "", q: query.get("q") || "" };
  const jump = el("input", { type: "text", size: 16, placeholder: "Cursor or time", "aria-label": "Go to cursor or time", title: "A cursor, such as 1200, or a time, such as 2026-01-31 14:05", id: "jump" });
  const go = el("form", { class: "pair" }, jump, el("button", { type: "submit" }, "Go"));
  const types = choice("Type", typeChoices([], filters.type), filters.type, (type) => app.go(at({ ...filters, type })));
  const search = el("input", { type: "search", id: "search", placeholder: "Text in the fields  ( / )", "aria-label": "Text in the fields", value: filters.q, autocomplete: "off", spellcheck: "false" });
  const newest = el("a", { class: "button", href: at(filters) }, "Newest");
  const newer = el("a", { class: "button", id: "newer", hidden: true }, "‹ Newer");
  const older = el("a", { class: "button", id: "older", hidden: true }, "Older ›");
  const bar = el("div", { class: "bar" }, types, search, go, el("span", { class: "end" }), newest, newer, older);
  search.addEventListener("change", () => app.go(at({ ...filters, q: search.value })));
  go.addEventListener("submit", (event) => {
    event.preventDefault();
    const place = placeOf(jump.value);
    if (place) app.go(at({ ...filters, ...place }));
    else app.say(`“${jump.value}” is neither a cursor nor a time. Write 1200, or 2026-01-31 14:05.`);
  });
  place.replaceWith(facts, strip, bar, more, line);
  let now = one;
  const draw = () => facts.replaceChildren(aboutWorkflow(now, memory));
  draw();

  const asked = new URLSearchParams({ id, limit: PAGE, type: filters.type, containing: filters.q });
  const given = ["after", "upto", "until"].find((name) => query.get(name));
  const follows = !given && !cursor;
  if (given) asked.set(given, query.get(given));
  else if (cursor) asked.set("upto", Math.min(now.cursor, Number(cursor) + PAGE / 2));
  let seen = null;
  marked = cursor;
  async function load() {
    const found = now.cursor > now.trimmed ? await app.get(`api/events?${asked}`) : { commits: [], first: 0, last: 0, older: false, newer: false };
    line.replaceChildren(...rows(id, now, found, seen));
    if (!line.childElementCount) line.append(el("p", { class: "empty" }, emptyText(found, filters)));
    seen = Math.max(seen ?? 0, found.last);
    newest.hidden = !found.newer && follows;
    newer.hidden = !found.newer;
    newer.href = at({ ...filters, after: found.last });
    older.hidden = !found.older;
    older.href = at({ ...filters, upto: found.first - 1 });
    mark(marked);
  }
  async function survey() {
    const { samples } = await app.get(`api/overview?${new URLSearchParams({ id })}`);
    strip.hidden = samples.length === 0;
    if (samples.length) strip.replaceChildren(...overview(app, id, now, samples));
    const known = [...new Set(samples.flatMap((sample) => Object.keys(sample.types)))].sort();
    offer(types, typeChoices(known, filters.type), filters.type);
  }
  async function weigh() {
    const sizes = await app.get(`api/memory?${new URLSearchParams({ id })}`);
    memory.textContent = bytes(Object.values(sizes).reduce((sum, size) => sum + size, 0));
    memory.title = Object.entries(sizes).filter(([, size]) => size).map(([name, size]) => `${name} ${bytes(size)}`).join("\n");
  }
  await Promise.all([load(), survey(), weigh()]);
  const refresh = app.throttled(async () => {
    now = await app.get(`api/workflow?${new URLSearchParams({ id })}`);
    draw();
    document.getElementById("state")?.replaceChildren(state(now));
    if (!follows) return;
    // A reader who has scrolled down keeps their place.
    if (window.scrollY < line.offsetTop) await load();
    else {
      more.hidden = now.cursor <= seen;
      more.textContent = `${number(now.cursor - seen)} new ↑`;
    }
  }, 400);
  const resurvey = app.throttled(survey, 5000);
  return (word) => {
    if (!word.changed.includes(id) && !word.missed) return;
    refresh();
    resurvey();
  };
}

function typeChoices(known, chosen) {
  const names = chosen && !known.includes(chosen) ? [chosen, ...known] : known;
  return [["", "Any type"], ...names.map((name) => [name, name])];
}

/** The place that a cursor or a time names, as a part of an address; null if the text is neither. */
function placeOf(text) {
  const digits = text.trim().replaceAll(",", "");
  if (/^[0-9]{1,15}$/.test(digits)) return Number(digits) ? { upto: Number(digits) } : null;
  const time = Date.parse(text);
  return Number.isNaN(time) ? null : { until: new Date(time).toISOString() };
}

function emptyText({ first, last }, { type, q }) {
  if (!type && !q) return "No events here.";
  return last ? `None of the events ${number(first)} to ${number(last)} matches.` : "No event matches.";
}

let marked = null;
/** Mark the event, or the checkpoint, that the panel shows. */
export function mark(cursor) {
  marked = cursor;
  for (const one of document.querySelectorAll("[data-cursor]")) {
    const is = one.dataset.cursor === String(cursor);
    if (is) one.setAttribute("aria-current", "true");
    else one.removeAttribute("aria-current");
  }
}

function rows(id, one, found, seen) {
  const made = [];
  let snapshot = one.snapshot_cursor;
  const commits = merged(found.commits);
  // The snapshot stands above the last event that it covers, and at the top only if the page has the newest event.
  if (snapshot > found.last && found.newer) snapshot = null;
  const marked = (text, kind, when) => el("div", { class: `mark ${kind}` }, text, when && [", ", time(when)]);
  const snapshotMark = () => {
    snapshot = null;
    return marked(`Snapshot at ${number(one.snapshot_cursor)}, ${bytes(one.snapshot_bytes)}`, "", one.snapshot_time);
  };
  for (const commit of commits) {
    const list = el("ol");
    const span = commit.end - commit.start === 1 ? number(commit.end) : `${number(commit.start + 1)}–${number(commit.end)}`;
    const head = el("div", { class: "about-commit" }, el("b", null, span), time(commit.time), el("span", null, commit.end - commit.start === 1 ? "1 event" : `${number(commit.end - commit.start)} events`),
      Object.entries(commit.metadata || {}).map(([name, value]) => el("span", { class: "chip", title: `${name}=${value}` }, `${name}=${value}`)),
      (commit.tags || []).map((tag) => el("span", { class: "chip", title: `tag ${tag}` }, tag)));
    if (commit.problem) head.replaceChildren(el("span", { class: "problem" }, commit.problem));
    if (snapshot !== null && snapshot >= commit.end) made.push(snapshotMark());
    for (const event of commit.events) {
      if (snapshot !== null && snapshot >= event.cursor) list.append(el("li", null, snapshotMark()));
      list.append(el("li", null,
        el("a", { class: seen !== null && event.cursor > seen ? "event fresh" : "event", href: to("w", id, "e", event.cursor), "data-cursor": event.cursor },
          el("span", { class: "cursor" }, number(event.cursor)), typeLabel(event.type), el("span", { class: "text" }, event.text))));
    }
    made.push(el("section", { class: "commit" }, head, list));
  }
  if (snapshot !== null && !found.older) made.push(snapshotMark());
  if (one.trimmed && !found.older) made.push(marked(`Events up to ${number(one.trimmed)} are trimmed`, "trim"));
  return made;
}

/** Join the parts of large commits. */
function merged(commits) {
  const made = [];
  for (const commit of commits) {
    const above = made.at(-1);
    if (above && commit.id && above.id === commit.id && above.start === commit.end) {
      above.start = commit.start;
      above.events.push(...commit.events);
    } else made.push({ ...commit });
  }
  return made;
}

/** Draw the whole history as a strip along the cursors, in the colours of the types, with snapshot and trim. */
function overview(app, id, one, samples) {
  const width = 1000;
  const height = 56;
  const x = (cursor) => (cursor / one.cursor) * width;
  const bars = [];
  const types = new Map();
  samples.forEach((sample, at) => {
    const left = at ? (samples[at - 1].end + sample.start) / 2 : sample.start;
    const right = at + 1 < samples.length ? (sample.end + samples[at + 1].start) / 2 : sample.end;
    const total = sample.end - sample.start;
    let y = height;
    for (const [type, count] of Object.entries(sample.types).sort()) {
      types.set(type, (types.get(type) || 0) + count);
      const tall = (count / total) * height;
      y -= tall;
      const said = `${number(sample.start + 1)}–${number(sample.end)}\n${dated(sample.time)}\n${type}: ${count} of ${total}`;
      bars.push(el("rect", { class: "fill", style: colourOf(type), x: x(left), width: Math.max(1, x(right) - x(left)), y, height: tall }, el("title", null, said)));
    }
  });
  const hatch = el("defs", null, el("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" }, el("line", { class: "hatch", x1: 0, x2: 0, y1: 0, y2: 6 })));
  const gone = one.trimmed ? el("rect", { class: "gone", x: 0, y: 0, height, width: x(one.trimmed) }, el("title", null, `Trimmed up to ${number(one.trimmed)}`)) : null;
  const at = (cursor, kind) => el("line", { class: `at ${kind}`, x1: x(cursor), x2: x(cursor), y1: 0, y2: height });
  const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": "The whole history. Press a place to go there", click: (event) => {
    const box = svg.getBoundingClientRect();
    app.go(`${to("w", id)}?upto=${Math.max(1, Math.round(((event.clientX - box.left) / box.width) * one.cursor))}`);
  } }, hatch, gone, bars, one.snapshot_cursor === null ? null : [at(one.snapshot_cursor, "around"), at(one.snapshot_cursor, "snapshot")]);
  const sampled = samples.reduce((sum, sample) => sum + sample.end - sample.start, 0) < one.cursor - one.trimmed;
  return [
    svg,
    el("div", { class: "ends" }, el("span", null, `${number(samples[0].start + 1)}, `, time(samples[0].time, { exact: true })), el("span", null, sampled ? `${samples.length} samples` : "all events"), el("span", null, `${number(samples.at(-1).end)}, `, time(samples.at(-1).time, { exact: true }))),
    el("div", { class: "legend" },
      [...types.keys()].sort().map((type) => el("span", { style: colourOf(type) }, el("i"), type)),
      one.snapshot_cursor !== null && el("span", null, el("i", { class: "snap" }), "snapshot"),
      one.trimmed > 0 && el("span", null, el("i", { class: "trim" }), "trimmed")),
  ];
}

/** Show an event with its fields, its commit and its metadata. */
export async function showEvent(panel, app, id, cursor) {
  const [event, one] = await Promise.all([
    app.get(`api/event?${new URLSearchParams({ id, cursor })}`, { beside: true }),
    app.get(`api/workflow?${new URLSearchParams({ id })}`, { beside: true }),
  ]);
  const step = (label, to_, there) => el("a", { class: "button", href: there ? to("w", id, "e", to_) : null, hidden: !there }, label);
  const close = el("button", { type: "button", class: "end", id: "close", click: () => app.go(`${to("w", id)}?upto=${Math.min(one.cursor, event.cursor + PAGE / 2)}`) }, "Close");
  const buttons = el("div", { class: "buttons" }, step("‹ Older", event.cursor - 1, event.cursor - 1 > one.trimmed), step("Newer ›", event.cursor + 1, event.cursor < one.cursor), close);
  panel.hidden = false;
  if (event.problem) return panel.replaceChildren(buttons, problemText(event.problem));
  const { start, end } = event.commit;
  panel.replaceChildren(
    buttons,
    el("h2", null, typeLabel(event.type)),
    about(["Cursor", number(event.cursor)], ["Time", time(event.time, { exact: true })], ["Commit", end - start === 1 ? number(end) : `${number(start + 1)}–${number(end)}`], ["Commit id", el("span", { class: "mono" }, event.commit.id)]),
    ...valueSection("Fields", event.fields),
    ...(event.metadata ? valueSection("Metadata", event.metadata) : []));
}

/** Show the graph of a workflow's facts. */
export async function showFacts(main, app, id, upto) {
  const [, place] = await showHead(main, app, id, "facts");
  const asked = new URLSearchParams({ id });
  if (upto) asked.set("upto", upto);
  const graph = await app.get(`api/graph?${asked}`);
  if (!graph.nodes.length) {
    place.replaceWith(el("p", { class: "card empty" }, graph.last ? `None of the events ${number(graph.first)} to ${number(graph.last)} refers to a fact.` : "No events here."));
  } else {
    place.replaceWith(drawGraph(id, graph));
  }
  main.append(el("div", { class: "note" },
    el("span", null, `The facts of the events ${number(graph.first)} to ${number(graph.last)}${graph.cut ? ", the latest ones only" : ""}. Lines lead from an event to the facts that it made, and from a fact to the events that used it. Point at a node to see its origin and its results.`),
    graph.older && graph.first > 1 && el("a", { class: "button", id: "older", href: to("w", id, "facts", graph.first - 1) }, "‹ Older")));
  return () => {};
}
