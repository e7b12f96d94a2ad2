// A thread of LangGraph: its checkpoints as a tree for each namespace, the newest on top, and one of them in the panel.

import { about, bytes, el, number, problemText, time, to } from "./dom.js";
import { mark, showHead } from "./workflow.js";

// The height of a row, as in the style sheet, and the width of a lane.
const ROW = 58;
const LANE = 18;
const LEFT = 26;
// Deeper forks share the last lane.
const LANES = 12;

// The checkpoints that are shown, by cursor, and the elements that draw each.
let drawn = new Map();

/** Show the checkpoints of a thread up to a cursor, if the address names one. */
export async function showCheckpoints(main, app, id, query, chosen) {
  const [one, place] = await showHead(main, app, id, "checkpoints");
  const upto = query.get("upto");
  const body = el("div", { class: "threads" });
  place.replaceWith(body);
  async function load() {
    const asked = new URLSearchParams({ id });
    if (upto) asked.set("upto", upto);
    const found = one.cursor > one.trimmed ? await app.get(`api/checkpoints?${asked}`) : { namespaces: [], early: [], problems: [] };
    drawn = new Map();
    body.replaceChildren(...found.namespaces.map((tree) => drawTree(id, tree, upto)), ...notes(id, found));
    mark(chosen);
    markPath(chosen);
  }
  await load();
  const refresh = app.throttled(async () => {
    chosen = document.querySelector(".checkpoint[aria-current]")?.dataset.cursor;
    await load();
  }, 400);
  return (word) => {
    if (!upto && (word.changed.includes(id) || word.missed)) refresh();
  };
}

function notes(id, found) {
  const said = found.problems.map(({ cursor, text }) => el("p", { class: "problem" }, el("a", { href: to("w", id, "e", cursor) }, `Event ${number(cursor)}`), `: ${text}`));
  for (const { ns, id: checkpoint, writes } of found.early) said.push(el("p", null, `${counted(writes, "write")} to the checkpoint ${named(ns, checkpoint)}, which is not stored.`));
  if (!found.namespaces.length) said.push(el("p", null, "No checkpoints here."));
  else said.push(el("span", null, "A line leads from a checkpoint down to its parent. Press a checkpoint to see its path and its values."));
  const newest = found.newer && el("a", { class: "button", href: to("w", id, "checkpoints") }, "Newest");
  const older = found.older && found.first > 1 && el("a", { class: "button", id: "older", href: address(id, "", found.first - 1) }, "‹ Older");
  return [el("div", { class: "note" }, ...said, newest, older)];
}

const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
const named = (ns, id) => (ns ? `${id} of ${ns}` : id);
// The first characters of LangGraph's ids are a time. They differ from one checkpoint to the next.
const brief = (id) => (id.length > 18 ? id.slice(0, 18) : id);

/** The address of a checkpoint in the page that is shown. */
function address(id, cursor, upto) {
  const there = cursor ? to("w", id, "checkpoints", cursor) : to("w", id, "checkpoints");
  return upto ? `${there}?${new URLSearchParams({ upto })}` : there;
}

function drawTree(id, { ns, lanes, checkpoints }, upto) {
  const width = LEFT + Math.min(lanes, LANES) * LANE;
  const x = (one) => LEFT + Math.min(one.lane, LANES - 1) * LANE;
  const y = (row) => row * ROW + ROW / 2;
  const lines = checkpoints.map((one, row) => {
    if (one.parent_row !== null) {
      const parent = checkpoints[one.parent_row];
      return el("path", { class: "edge", d: edge(x(one), y(row), x(parent), y(one.parent_row)) });
    }
    // The parent is on another page, or pruned.
    return one.parent ? el("path", { class: "edge gone-on", d: `M${x(one)},${y(row)} V${y(row) + ROW / 2 - 3}` }) : null;
  });
  const dots = checkpoints.map((one, row) => el("rect", { class: "dot-of", x: x(one) - 5, y: y(row) - 5, width: 10, height: 10, rx: 5 }));
  const rows = checkpoints.map((one) => rowOf(id, one, upto, width));
  checkpoints.forEach((one, row) => drawn.set(one.cursor, { one, parent: one.parent_row === null ? null : checkpoints[one.parent_row].cursor, parts: [lines[row], dots[row], rows[row]].filter(Boolean) }));
  const height = checkpoints.length * ROW;
  return el("section", { class: "card thread" },
    el("h2", null, ns || "Graph", el("span", { class: "muted" }, counted(checkpoints.length, "checkpoint"))),
    el("div", { class: "forks" },
      el("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, lines, dots),
      el("ol", null, rows.map((row) => el("li", null, row)))));
}

/** A line that stays in its lane until it is beside the parent. */
function edge(x, y, toX, toY) {
  if (x === toX) return `M${x},${y} V${toY}`;
  const bend = toY - ROW / 2;
  return `M${x},${y} V${bend} C${x},${toY} ${x},${toY} ${toX},${toY}`;
}

function rowOf(id, one, upto, width) {
  const badge = (kind, text) => el("span", { class: `badge ${kind}` }, text);
  const changed = one.changed.slice(0, 8).map((name) => el("span", { class: "chip" }, name));
  const facts = [
    one.changed_count > 8 && `and ${number(one.changed_count - 8)} more`,
    one.changed_count > 0 && `${bytes(one.changed_bytes)} of ${bytes(one.bytes)}`,
    one.write_count > 0 && `${counted(one.write_count, "write")} of ${counted(one.tasks, "task")}, ${bytes(one.write_bytes)}`,
    one.writes_elsewhere > 0 && `${counted(one.writes_elsewhere, "commit")} of writes on other pages`,
    one.history.length > 0 && `history of ${counted(one.history.length, "channel")}`,
    one.parent && one.parent_row === null && parentText(one),
  ].filter(Boolean);
  return el("a", { class: "checkpoint", href: address(id, one.cursor, upto), "data-cursor": one.cursor, title: one.id, style: { "padding-left": `${width}px` } },
    el("span", { class: "first" },
      el("b", null, one.step === null ? "–" : `Step ${number(one.step)}`), one.source && el("span", { class: "muted" }, one.source),
      el("span", { class: "mono" }, brief(one.id)), time(one.time),
      one.branches > 1 && badge("waiting", `fork, ${number(one.branches)} branches`),
      one.interrupts > 0 && badge("leased", counted(one.interrupts, "interrupt")),
      one.errors > 0 && badge("parked", counted(one.errors, "error"))),
    el("span", { class: "second" }, changed, facts.map((text) => el("span", null, text))));
}

const parentText = (one) => (one.parent_cursor === null ? "its parent is pruned" : "its parent is on another page");

/** Mark the checkpoints from which a checkpoint was made, or none. */
export function markPath(cursor) {
  for (const { parts } of drawn.values()) for (const part of parts) part.classList.remove("on");
  for (const one of path(Number(cursor))) for (const part of one.parts) part.classList.add("on");
  const on = drawn.has(Number(cursor));
  for (const tree of document.querySelectorAll(".thread")) tree.classList.toggle("lit", on);
}

/** The checkpoints of the page from one back to the first, the newest first. */
function path(cursor) {
  const found = [];
  for (let one = drawn.get(cursor); one; one = drawn.get(one.parent)) found.push(one);
  return found;
}

/** Show a checkpoint, its channels, the writes to it, and its path. */
export function showCheckpoint(panel, app, id, query, cursor) {
  const upto = query.get("upto");
  const close = el("button", { type: "button", class: "end", id: "close", click: () => app.go(address(id, "", upto)) }, "Close");
  const shown = drawn.get(Number(cursor));
  panel.hidden = false;
  if (!shown) return panel.replaceChildren(el("div", { class: "buttons" }, close), problemText("This page has no such checkpoint."));
  const { one, parent } = shown;
  const there = parent ? address(id, parent, upto) : one.parent_cursor ? address(id, one.parent_cursor, one.parent_cursor) : null;
  const parentLink = one.parent && [there ? el("a", { class: "mono", href: there }, one.parent) : el("span", { class: "mono" }, one.parent), !parent && !one.parent_cursor && " (pruned)"];
  panel.replaceChildren(
    el("div", { class: "buttons" }, el("a", { class: "button", href: to("w", id, "e", one.cursor) }, "Event"), close),
    el("h2", null, one.step === null ? "Checkpoint" : `Step ${number(one.step)}`),
    about(
      ["Id", el("span", { class: "mono" }, one.id)], ["Namespace", one.ns], ["Source", one.source], ["Run", one.run && el("span", { class: "mono" }, one.run)],
      ["Time", time(one.time, { exact: true })], ["Stored", time(one.stored, { exact: true })], ["Parent", parentLink && el("span", null, parentLink)], ["Path", pathText(Number(cursor))],
      ["History", one.history.join(", ")]),
    ...table("Channels", one.channel_count, one.channels, [
      ["Channel", (row) => [row.channel, row.changed && el("span", { class: "badge open" }, "changed")]],
      ["Version", (row) => row.version],
      ["Type", (row) => (row.items === null ? row.type : `${row.type}, ${counted(row.items, "item")} in ${counted(row.pieces, "piece")}`)],
      ["Size", (row) => bytes(row.size)],
    ]),
    ...table("Writes", one.write_count, one.writes, [
      ["Task", (row) => el("span", { class: "mono", title: row.task }, row.task.slice(0, 8))],
      ["Channel", (row) => row.channel],
      ["Type", (row) => row.type],
      ["Size", (row) => (row.size === null ? "large" : bytes(row.size))],
    ]));
}

/** How a checkpoint came about: how many lead to it, and where others branch off. */
function pathText(cursor) {
  const before = path(cursor).slice(1);
  const forks = before.filter(({ one }) => one.branches > 1).map(({ one }) => (one.step === null ? brief(one.id) : `step ${number(one.step)}`));
  const last = before.at(-1)?.one ?? drawn.get(cursor).one;
  const whole = last.parent ? `${counted(before.length, "checkpoint")} on this page` : `${counted(before.length, "checkpoint")} from the start`;
  return forks.length ? `${whole}; forks at ${forks.join(", ")}` : whole;
}

function table(name, count, rows, columns) {
  if (!count) return [];
  return [
    el("div", { class: "section" }, el("h3", null, name)),
    el("table", { class: "parts" },
      el("thead", null, el("tr", null, columns.map(([label]) => el("th", null, label)))),
      el("tbody", null, rows.map((row) => el("tr", null, columns.map(([, cell]) => el("td", null, cell(row))))))),
    ...(count > rows.length ? [el("p", { class: "muted" }, `and ${number(count - rows.length)} more`)] : []),
  ];
}
