// The subscriptions with how far they are behind, and the commits that one of them has parked.

import { el, number, time, to } from "./dom.js";

const REFRESH_MS = 2000;

/** Show the subscriptions and projections, and keep them up to date. */
export async function showSubscriptions(main, app) {
  const rows = el("tbody");
  const empty = el("p", { class: "empty", hidden: true }, "No subscriptions yet.");
  main.replaceChildren(
    el("a", { class: "crumb", href: "#/" }, "‹ Workflows"),
    el("div", { class: "head" }, el("h1", null, "Subscriptions")),
    el("div", { class: "card" },
      el("table", null,
        el("thead", null, el("tr", null, el("th", null, "Name"), el("th", { class: "right" }, "Events behind"), el("th", { class: "right" }, "Seconds behind"),
          el("th", { class: "right" }, "Consumers"), el("th", { class: "right" }, "Parked"))),
        rows),
      empty));
  async function load() {
    const { subscriptions } = await app.get("api/subscriptions");
    rows.replaceChildren(...subscriptions.map(row));
    empty.hidden = subscriptions.length > 0;
  }
  await load();
  const refresh = app.throttled(load, REFRESH_MS);
  // A subscription also comes closer while nothing is written.
  return () => refresh();
}

function row(one) {
  const name = one.kind === "projection" ? one.name : el("a", { href: to("s", one.name) }, one.name);
  const kind = one.kind === "projection" ? el("span", { class: "badge" }, "projection") : null;
  const failing = one.failing.map(({ partition, attempts, reason }) =>
    el("p", { class: "problem" }, `Partition ${partition} failed ${number(attempts)} ${attempts === 1 ? "time" : "times"}: ${reason}`));
  const consumers = Object.entries(one.consumers).map(([id, partitions]) => `${id}: ${partitions}`);
  return el("tr", { "data-name": one.name },
    el("td", null, name, " ", kind, failing),
    el("td", { class: "right" }, number(one.lag_events)),
    el("td", { class: "right" }, one.lag_s.toFixed(1)),
    el("td", { class: "right", title: consumers.join("\n") }, number(consumers.length)),
    el("td", { class: "right" }, one.parked ? el("a", { href: to("s", one.name), class: "badge unfinished" }, number(one.parked)) : "0"));
}

/** Show the commits that a subscription has parked. */
export async function showParked(main, app, name) {
  const rows = el("tbody");
  const note = el("p", { class: "note" });
  main.replaceChildren(
    el("a", { class: "crumb", href: "#/s" }, "‹ Subscriptions"),
    el("div", { class: "head" }, el("h1", null, name)),
    el("div", { class: "card" },
      el("table", null,
        el("thead", null, el("tr", null, el("th", null, "Workflow"), el("th", { class: "right w-number" }, "Cursor"), el("th", { class: "w-state" }, "State"),
          el("th", null, "Reason"), el("th", { class: "right w-number" }, "Attempts"), el("th", { class: "right w-time" }, "Time"), el("th", { class: "right w-buttons" }))),
        rows),
      note));
  async function load() {
    const { parked, total, changes } = await app.get(`api/parked?${new URLSearchParams({ name })}`);
    const seen = new Set();
    rows.replaceChildren(...parked.map((one) => parkedRow(one, changes && one.state === "parked" && !seen.has(one.workflow_id) && seen.add(one.workflow_id))));
    if (!total) note.textContent = "No commit is parked.";
    else if (parked.length < total) note.textContent = `The first ${number(parked.length)} of ${number(total)} commits.`;
    else note.textContent = changes ? "Replay and Drop apply to all parked commits of a workflow." : "To replay or drop commits here, start the page with --allow-changes.";
  }
  /** Replay or drop the parked commits of a workflow. */
  async function settle(what, id) {
    try {
      await app.post(`api/parked/${what}?${new URLSearchParams({ name, id })}`);
      await load();
    } catch (error) {
      app.say(error.message);
    }
  }
  function parkedRow(one, settles) {
    const id = one.workflow_id;
    const drop = () => confirm(`Drop the parked commits of ${id}? This cannot be undone.`) && settle("drop", id);
    return el("tr", { "data-id": id },
      el("td", { class: "id" }, el("a", { href: to("w", id), title: id }, id)),
      el("td", { class: "right" }, one.deleted ? "deleted" : number(one.cursor)),
      el("td", { class: "w-state" }, el("span", { class: `badge ${one.state === "parked" ? "unfinished" : "open"}` }, one.state)),
      el("td", { class: "reason", title: one.reason }, one.reason),
      el("td", { class: "right" }, number(one.attempts)),
      el("td", { class: "right muted" }, time(one.time)),
      el("td", { class: "right w-buttons" }, settles ? [el("button", { click: () => settle("replay", id) }, "Replay"), " ", el("button", { click: drop }, "Drop")] : null));
  }
  await load();
  const refresh = app.throttled(load, REFRESH_MS);
  return () => refresh();
}
