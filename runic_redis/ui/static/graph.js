// The graph of facts, drawn from left to right: a node stands to the right of everything that it was made from.

import { el, colourOf, number, svgLink, to } from "./dom.js";

const WIDTH = 216;
const HEIGHT = 40;
const ACROSS = 74;
const DOWN = 16;
const EDGE = 24;

/** Draw the graph in a frame that scrolls. It starts at the top left; nodes are links to the event or the fact. */
export function drawGraph(workflowId, { nodes, edges }) {
  const place = layout(nodes, edges);
  const after = new Map(nodes.map((node) => [node.id, []]));
  const before = new Map(nodes.map((node) => [node.id, []]));
  for (const edge of edges) {
    after.get(edge.from).push(edge);
    before.get(edge.to).push(edge);
  }
  const paths = new Map(edges.map((edge) => [edge, el("path", { class: "edge", d: curve(place.get(edge.from), place.get(edge.to)) })]));
  const drawn = new Map(nodes.map((node) => [node.id, draw(workflowId, node, place.get(node.id))]));
  const width = Math.max(...[...place.values()].map(({ x }) => x)) + WIDTH + EDGE;
  const height = Math.max(...[...place.values()].map(({ y }) => y)) + HEIGHT + EDGE;
  const svg = el("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Facts and what made them" }, [...paths.values()], [...drawn.values()]);
  const frame = el("div", { class: "graph card", tabindex: 0 }, svg);
  for (const node of nodes) {
    const light = (on) => () => {
      frame.classList.toggle("lit", on);
      reach(node.id, before, (edge) => edge.from, on);
      reach(node.id, after, (edge) => edge.to, on);
    };
    drawn.get(node.id).addEventListener("pointerenter", light(true));
    drawn.get(node.id).addEventListener("pointerleave", light(false));
  }
  // Light up the nodes that a node was made from, or those that were made from it.
  function reach(id, from, next, on) {
    const seen = new Set([id]);
    const left = [id];
    while (left.length) {
      const one = left.pop();
      drawn.get(one).classList.toggle("on", on);
      for (const edge of from.get(one)) {
        paths.get(edge).classList.toggle("on", on);
        if (!seen.has(next(edge))) {
          seen.add(next(edge));
          left.push(next(edge));
        }
      }
    }
  }
  return frame;
}

function draw(workflowId, node, { x, y }) {
  const href = node.hash ? to("f", node.hash) : node.cursor ? to("w", workflowId, "e", node.cursor) : null;
  const name = brief(node.label);
  const [label, small] = {
    event: () => [name, `event ${number(node.cursor)}`],
    step: () => [node.label, "node"],
    fact: () => (node.text ? [node.text, name] : [name, node.type ? brief(node.type) : "fact"]),
  }[node.kind]();
  return el("g", { class: "node", transform: `translate(${x},${y})` },
    svgLink({ href },
      el("title", null, [node.hash || node.label, node.text].filter(Boolean).join("\n")),
      el("rect", { class: `box ${node.kind}`, style: node.kind === "event" ? colourOf(node.type) : null, width: WIDTH, height: HEIGHT, rx: node.kind === "fact" ? HEIGHT / 2 : 8 }),
      el("text", { x: 16, y: 17 }, cut(label, 25)),
      el("text", { class: "small", x: 16, y: 31 }, cut(small, 29))));
}

const cut = (text, length) => (text.length > length ? text.slice(0, length - 1) + "…" : text);
// The prefix that all names share says nothing.
const brief = (name) => name.replace(/^(sha256:|runic\.)/, "");

function curve(from, { x, y }) {
  const [x1, y1, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, y + HEIGHT / 2];
  const bend = Math.max(30, Math.abs(x - x1) / 2);
  return `M${x1},${y1} C${x1 + bend},${y1} ${x - bend},${y2} ${x},${y2}`;
}

/** Place each node: its column is the longest path to it, its row is near the nodes that it is joined to. */
function layout(nodes, edges) {
  const from = new Map(nodes.map((node) => [node.id, []]));
  const into = new Map(nodes.map((node) => [node.id, []]));
  const open = new Map(nodes.map((node) => [node.id, 0]));
  for (const edge of edges) {
    from.get(edge.from).push(edge.to);
    into.get(edge.to).push(edge.from);
    open.set(edge.to, open.get(edge.to) + 1);
  }
  const layer = new Map(nodes.map((node) => [node.id, 0]));
  const done = new Set();
  const ready = nodes.filter((node) => !open.get(node.id)).map((node) => node.id);
  const rest = nodes.map((node) => node.id);
  while (done.size < nodes.length) {
    // Damaged data may contain a circle: cut it at its earliest node.
    const id = ready.shift() ?? rest.find((one) => !done.has(one));
    if (done.has(id)) continue;
    done.add(id);
    for (const next of from.get(id)) {
      if (done.has(next)) continue;
      layer.set(next, Math.max(layer.get(next), layer.get(id) + 1));
      open.set(next, open.get(next) - 1);
      if (!open.get(next)) ready.push(next);
    }
  }
  const columns = [];
  for (const node of nodes) (columns[layer.get(node.id)] ||= []).push(node.id);
  const row = new Map();
  const order = (column) => column.forEach((id, at) => row.set(id, at));
  columns.forEach(order);
  for (let turn = 0; turn < 6; turn++) {
    const joined = turn % 2 ? from : into;
    for (const column of turn % 2 ? [...columns].reverse() : columns) {
      const middle = new Map(column.map((id) => {
        const beside = joined.get(id).map((other) => row.get(other));
        return [id, beside.length ? beside.reduce((sum, one) => sum + one, 0) / beside.length : row.get(id)];
      }));
      column.sort((one, other) => middle.get(one) - middle.get(other));
      order(column);
    }
  }
  // All columns start at the top, so the beginning of the graph is in sight.
  const place = new Map();
  columns.forEach((column, number) => {
    column.forEach((id, at) => place.set(id, { x: EDGE + number * (WIDTH + ACROSS), y: EDGE + at * (HEIGHT + DOWN) }));
  });
  return place;
}
