// The workflows, the one written to last first.

import { drawRate, el, number, time, to, visible } from "./dom.js";

const PAGE = 50;

/** Shows a page of the workflows, and keeps it up to date. */
export async function showWorkflows(main, app, query) {
  let searched = query.get("q") || "";
  const count = el("div", { class: "value" }, "–");
  const unfinished = el("div", { class: "value" }, "–");
  const rate = el("div", { class: "value" }, "–");
  const chart = el("svg", { viewBox: "0 0 120 60", preserveAspectRatio: "none", "aria-hidden": "true" });
  const search = el("input", { type: "search", id: "search", placeholder: "Search for a part of an id  ( / )", "aria-label": "Search", value: searched, autocomplete: "off", spellcheck: "false" });
  const rows = el("tbody");
  const empty = el("p", { class: "empty", hidden: true });
  const newest = el("a", { class: "button", href: "#/" }, "Newest");
  const older = el("a", { class: "button", id: "older" }, "Older ›");
  const said = el("span", { class: "muted" });
  main.replaceChildren(
    el("div", { class: "tiles" },
      tile("Workflows", count), tile("Unfinished", unfinished),
      el("div", { class: "card tile wide chart" }, el("div", null, el("div", { class: "label" }, "Events a second, now"), rate), chart)),
    el("div", { class: "bar" }, search, said, el("span", { class: "end" }), newest, older),
    el("div", { class: "card" },
      el("table", null,
        el("thead", null, el("tr", null, el("th", null, "Workflow"), el("th", { class: "w-state" }, "State"), el("th", { class: "right w-number" }, "Events"),
          el("th", { class: "right w-number w-snapshot" }, "Snapshot at"), el("th", { class: "right w-number w-facts" }, "Facts"), el("th", { class: "right w-time" }, "Last write"))),
        rows),
      empty));

  let first = !query.get("before");
  let cursors = null;
  let loads = 0;
  async function load() {
    const mine = ++loads;
    const asked = new URLSearchParams({ limit: PAGE, containing: searched });
    if (!first) asked.set("before", query.get("before"));
    const found = await app.get(`api/workflows?${asked}`);
    if (mine !== loads) return;
    const known = cursors;
    cursors = new Map(found.workflows.map((one) => [one.workflow_id, one.cursor]));
    rows.replaceChildren(...found.workflows.map((one) => row(one, known && known.get(one.workflow_id) !== one.cursor)));
    empty.hidden = found.workflows.length > 0;
    empty.textContent = searched ? `No workflow's id contains “${visible(searched)}”.` : "No workflows here yet.";
    older.hidden = !found.next;
    if (found.next) older.href = address({ q: searched, before: found.next });
    newest.hidden = first;
    newest.href = address({ q: searched });
    said.textContent = first ? "" : "Older ones: not kept up to date";
  }
  async function tally() {
    const { workflows, unfinished: left } = await app.get("api/summary");
    count.textContent = number(workflows);
    unfinished.textContent = number(left);
  }
  let waiting;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      [searched, first, cursors] = [search.value, true, null];
      // Typing on is no new place to go back to.
      history.replaceState(null, "", address({ q: searched }));
      look();
    }, 180);
  });
  const look = app.throttled(load, 0);
  await Promise.all([load(), tally()]);
  const refresh = app.throttled(() => Promise.all([first && load(), tally()]), 1000);
  return (word) => {
    rate.textContent = number(word.history.at(-2));
    drawRate(chart, word.history, 60);
    if (word.changed.length || word.missed) refresh();
  };
}

const tile = (label, value) => el("div", { class: "card tile" }, el("div", { class: "label" }, label), value);

function address(parts) {
  const query = new URLSearchParams(Object.entries(parts).filter(([, value]) => value));
  return query.size ? `#/?${query}` : "#/";
}

function row(one, fresh) {
  return el("tr", { class: fresh ? "fresh" : null, "data-id": one.workflow_id },
    el("td", { class: "id" }, el("a", { href: to("w", one.workflow_id), title: one.workflow_id }, one.workflow_id)),
    el("td", { class: "w-state" }, state(one)),
    el("td", { class: "right" }, number(one.cursor)),
    el("td", { class: "right w-snapshot" }, one.snapshot_cursor === null ? "" : number(one.snapshot_cursor)),
    el("td", { class: "right w-facts" }, one.facts ? number(one.facts) : ""),
    el("td", { class: "right muted" }, time(one.written)));
}

/** A workflow's state as a badge. */
export const state = (one) => (one.damaged.length ? el("span", { class: "badge damaged", title: one.damaged.join("\n") }, "damaged") : el("span", { class: `badge ${one.state}` }, one.state));
