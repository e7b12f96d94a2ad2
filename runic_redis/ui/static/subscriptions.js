// The subscriptions with how far they are behind, and the commits that one of them has parked.

import { el, number, problemText, time, to, visible } from "./dom.js";

const REFRESH_MS = 2000;

/** Show the subscriptions and projections, and keep them up to date. */
export async function showSubscriptions(main, app) {
  const list = el("ol", { class: "card" });
  const note = el("p", { class: "note" }, "No subscriptions yet.");
  main.replaceChildren(
    el("a", { class: "crumb", href: "#/" }, "‹ Workflows"),
    el("div", { class: "head" }, el("h1", null, "Subscriptions")),
    list, note);
  async function load() {
    const { subscriptions } = await app.get("api/subscriptions");
    list.replaceChildren(...subscriptions.map(entry));
    list.hidden = !subscriptions.length;
    note.hidden = subscriptions.length > 0;
  }
  await load();
  const refresh = app.throttled(load, REFRESH_MS);
  // A subscription also comes closer while nothing is written.
  return () => refresh();
}

function entry(one) {
  const isProjection = one.kind === "projection";
  const lag = one.lag_events ? `${counted(one.lag_events, "event")} and ${one.lag_s.toFixed(1)} s behind` : "up to date";
  const consumers = Object.entries(one.consumers);
  const shares = consumers.map(([id, partitions]) => `${id}: ${counted(partitions, "partition")}`).join("\n");
  return el("li", { class: "entry", "data-name": one.name },
    el("div", { class: "what" },
      isProjection ? one.name : el("a", { href: to("s", one.name) }, one.name),
      el("p", { class: "muted" }, lag, ", ", el("span", { title: shares }, counted(consumers.length, "consumer"))),
      one.failing.map(({ partition, attempts, reason }) => problemText(`Partition ${partition} failed ${counted(attempts, "time")}: ${reason}`))),
    isProjection && el("span", { class: "badge" }, "projection"),
    one.parked > 0 && el("a", { class: "badge waiting", href: to("s", one.name) }, `${number(one.parked)} parked`));
}

const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Show the commits that a subscription has parked. */
export async function showParked(main, app, name) {
  const list = el("ol", { class: "card" });
  const note = el("p", { class: "note" });
  main.replaceChildren(
    el("a", { class: "crumb", href: "#/s" }, "‹ Subscriptions"),
    el("div", { class: "head" }, el("h1", null, name)),
    list, note);
  let shown = "";
  async function load() {
    const found = await app.get(`api/parked?${new URLSearchParams({ name })}`);
    // A button that has the focus stays, unless something has changed.
    if (JSON.stringify(found) === shown) return;
    shown = JSON.stringify(found);
    const { parked, total, changes } = found;
    const seen = new Set();
    // The buttons are for all parked commits of a workflow, so they are beside the first.
    const isFirst = ({ state, workflow_id }) => state === "parked" && !seen.has(workflow_id) && seen.add(workflow_id);
    list.replaceChildren(...parked.map((one) => item(one, changes && isFirst(one))));
    list.hidden = !total;
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
  function item(one, withButtons) {
    const id = one.workflow_id;
    const drop = () => confirm(`Drop the parked commits of ${visible(id)}? This cannot be undone.`) && settle("drop", id);
    const what = one.deleted ? "its deletion" : `cursor ${number(one.cursor)}`;
    const attempts = one.attempts ? `, ${counted(one.attempts, "attempt")}` : "";
    return el("li", { class: "entry", "data-id": id },
      el("div", { class: "what" },
        el("a", { class: "id", href: to("w", id) }, id),
        el("p", { class: "muted" }, what, attempts, ", ", time(one.time)),
        one.reason && problemText(one.reason)),
      el("span", { class: `badge ${one.state === "parked" ? "waiting" : ""}` }, one.state),
      withButtons && el("span", { class: "pair" }, el("button", { click: () => settle("replay", id) }, "Replay"), el("button", { click: drop }, "Drop")));
  }
  await load();
  const refresh = app.throttled(load, REFRESH_MS);
  return () => refresh();
}
