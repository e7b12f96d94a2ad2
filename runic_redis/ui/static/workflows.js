// The list of workflows, the one written to last first; those of queues by when they are due.

import { choice, drawRate, el, number, offer, sinceTime, time, to, visible } from "./dom.js";

const PAGE = 50;
const STATES = [["", "Any state"], ["open", "Open"], ["waiting", "Waiting"], ["leased", "Leased"], ["parked", "Parked"], ["completed", "Completed"]];
const TIMES = [["", "Written at any time"], ["1", "In the last hour"], ["24", "In the last day"], ["168", "In the last week"]];

/** Show a page of the workflows, and keep it up to date. */
export async function showWorkflows(main, app, query) {
  const filters = { q: query.get("q") || "", state: query.get("state") || "", queue: query.get("queue") || "", hours: query.get("hours") || "" };
  const [count, waiting, leased, parked, rate] = Array.from({ length: 5 }, () => el("div", { class: "value" }, "–"));
  const chart = el("svg", { viewBox: "0 0 120 60", preserveAspectRatio: "none", "aria-hidden": "true" });
  const search = el("input", { type: "search", id: "search", placeholder: "Part of an id  ( / )", "aria-label": "Part of an id", value: filters.q, autocomplete: "off", spellcheck: "false" });
  const states = choice("State", STATES, filters.state, (state) => change({ state }));
  const queues = choice("Queue", queueChoices([], filters.queue), filters.queue, (queue) => change({ queue }));
  const times = choice("Last write", TIMES, filters.hours, (hours) => change({ hours }));
  const rows = el("tbody");
  const empty = el("p", { class: "empty", hidden: true });
  const newest = el("a", { class: "button" }, "Newest");
  const older = el("a", { class: "button", id: "older", hidden: true });
  const note = el("span", { class: "muted" });
  main.replaceChildren(
    el("div", { class: "tiles" },
      tile("Workflows", count, {}), tile("Waiting", waiting, { state: "waiting" }), tile("Leased", leased, { state: "leased" }), tile("Parked", parked, { state: "parked" }),
      el("div", { class: "card tile wide chart" }, el("div", null, el("div", { class: "label" }, "Events per second"), rate), chart)),
    el("div", { class: "bar" }, search, states, queues, times, note, el("span", { class: "end" }), newest, older),
    el("div", { class: "card" },
      el("table", null,
        el("thead", null, el("tr", null, el("th", null, "Workflow"), el("th", { class: "w-state" }, "State"), el("th", { class: "w-queue" }, "Queue"), el("th", { class: "right w-time w-due" }, "Due"), el("th", { class: "right w-number" }, "Events"),
          el("th", { class: "right w-number w-snapshot" }, "Snapshot at"), el("th", { class: "right w-number w-facts" }, "Facts"), el("th", { class: "right w-time" }, "Last write"))),
        rows),
      empty));

  let first = !query.get("before");
  let cursors = null;
  let loads = 0;
  async function load() {
    const mine = ++loads;
    const asked = new URLSearchParams({ limit: PAGE, containing: filters.q, state: filters.state, queue: filters.queue });
    if (filters.hours) asked.set("since", sinceTime(Number(filters.hours)));
    if (!first) asked.set("before", query.get("before"));
    const found = await app.get(`api/workflows?${asked}`);
    if (mine !== loads) return;
    const known = cursors;
    cursors = new Map(found.workflows.map((one) => [one.workflow_id, one.cursor]));
    rows.replaceChildren(...found.workflows.map((one) => row(one, known && known.get(one.workflow_id) !== one.cursor)));
    empty.hidden = found.workflows.length > 0;
    empty.textContent = emptyText(filters, found.next);
    older.hidden = !found.next;
    // A page that is not full ends where the server stopped searching.
    older.textContent = found.workflows.length < PAGE ? "Search older ›" : "Older ›";
    if (found.next) older.href = address({ ...filters, before: found.next });
    newest.hidden = first;
    newest.href = address(filters);
    note.textContent = first ? "" : "Older workflows are not updated live";
  }
  async function tally() {
    const counts = await app.get("api/summary");
    count.textContent = number(counts.workflows);
    waiting.textContent = number(counts.states.waiting);
    leased.textContent = number(counts.states.leased);
    parked.textContent = number(counts.states.parked);
    offer(queues, queueChoices(counts.queues, filters.queue), filters.queue);
  }
  const look = app.throttled(load, 0);
  function change(changed) {
    Object.assign(filters, changed);
    [first, cursors] = [true, null];
    // The back button leads to the previous view, not to the previous filter.
    history.replaceState(null, "", address(filters));
    look();
  }
  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => change({ q: search.value }), 180);
  });
  await Promise.all([load(), tally()]);
  const refresh = app.throttled(() => Promise.all([first && load(), tally()]), 1000);
  return (word) => {
    rate.textContent = number(word.history.at(-2));
    drawRate(chart, word.history, 60);
    if (word.changed.length || word.missed) refresh();
  };
}

const tile = (label, value, filters) => el("a", { class: "card tile", href: address(filters) }, el("div", { class: "label" }, label), value);

function address(parts) {
  const query = new URLSearchParams(Object.entries(parts).filter(([, value]) => value));
  return query.size ? `#/?${query}` : "#/";
}

function queueChoices(known, chosen) {
  const names = chosen && !known.includes(chosen) ? [chosen, ...known] : known;
  return [["", "Any queue"], ...names.map((name) => [name, name])];
}

function emptyText({ q, state, queue, hours }, more) {
  if (more) return "None of the workflows searched so far matches.";
  if (q && !state && !queue && !hours) return `No workflow's id contains “${visible(q)}”.`;
  return q || state || queue || hours ? "No workflow matches." : "No workflows yet.";
}

function row(one, fresh) {
  const facts = one.facts ? el("a", { href: to("w", one.workflow_id, "facts") }, number(one.facts)) : "";
  return el("tr", { class: fresh ? "fresh" : null, "data-id": one.workflow_id },
    el("td", { class: "id" }, el("a", { href: to("w", one.workflow_id), title: one.workflow_id }, one.workflow_id)),
    el("td", { class: "w-state" }, state(one)),
    el("td", { class: "w-queue" }, one.queue || ""),
    el("td", { class: "right muted w-due" }, due(one)),
    el("td", { class: "right" }, number(one.cursor)),
    el("td", { class: "right w-snapshot" }, one.snapshot_cursor === null ? "" : number(one.snapshot_cursor)),
    el("td", { class: "right w-facts" }, facts),
    el("td", { class: "right muted" }, time(one.written)));
}

const MEANINGS = {
  open: "The workflow never was in a queue.",
  waiting: "The workflow is in a queue, and no worker has a lease.",
  leased: "A worker has a lease.",
  parked: "The workflow is out of its queue until it is put back.",
  completed: "The workflow is completed.",
};
/** Show when a workflow is due in its queue. */
export const due = (one) => (one.due ? time(one.due) : one.state === "waiting" ? "once woken" : "");
/** Make a badge with a workflow's state. */
export const state = (one) =>
  one.damaged.length
    ? el("span", { class: "badge damaged", title: one.damaged.join("\n") }, "damaged")
    : el("span", { class: `badge ${one.state}`, title: MEANINGS[one.state] }, one.state);
