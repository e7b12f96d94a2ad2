// The address decides which view is shown. One stream of news keeps the view up to date.

import { markPath, showCheckpoint, showCheckpoints } from "./checkpoints.js";
import { about, drawRate, el, number, problemText, visible } from "./dom.js";
import { showParked, showSubscriptions } from "./subscriptions.js";
import { valueSection } from "./value.js";
import { mark, showEvent, showFacts, showLine } from "./workflow.js";
import { showWorkflows } from "./workflows.js";

const [main, panel, banner, dot, rate, spark] = ["main", "panel", "banner", "live", "rate", "spark"].map((id) => document.getElementById(id));
// Each address that is shown has a number, its turn. A reply to an earlier turn is dropped. A scene is the content of
// `main`: it stays while the panel shows one event after another.
let turn = 0;
let scene = 0;
let shown = "";
let watching = null;
let news = null;
let latest = null;
let failed = false;

const app = {
  /** Get JSON from the server, or throw its error. With `beside`, the reply is for the panel and valid for this turn only. */
  async get(path, { beside = false, ...request } = {}) {
    const now = () => (beside ? turn : scene);
    const mine = now();
    let reply;
    try {
      reply = await fetch(path, request);
    } catch {
      throw new Error("The page's server cannot be reached. Check that runic-redis ui is still running.");
    }
    if (mine !== now()) throw new Dropped();
    if (reply.headers.get("content-type") !== "application/json") throw new Error(await reply.text());
    const value = await reply.json();
    if (mine !== now()) throw new Dropped();
    if (!reply.ok) throw new Error(value.error);
    return value;
  },
  /** Have the server change something. It takes this header as a sign that the request is from this page. */
  post: (path) => app.get(path, { method: "POST", headers: { "X-Runic-Redis": "1" } }),
  go(address) {
    if (address !== location.hash) history.pushState(null, "", address);
    return show();
  },
  /** Return a function that runs an action at most this often, and less often if it takes long. A call during a run leads to one more run. */
  throttled(action, ms) {
    const mine = scene;
    let running = false;
    let again = false;
    const run = async () => {
      if (running || mine !== scene) {
        again = true;
        return;
      }
      running = true;
      again = false;
      const began = performance.now();
      try {
        await action();
        say("");
      } catch (error) {
        if (error instanceof Dropped) again = true;
        else say(error.message);
      }
      setTimeout(() => {
        running = false;
        if (again && mine === scene) run();
      }, Math.max(ms, 4 * (performance.now() - began)));
    };
    return run;
  },
};

app.say = say;

class Dropped extends Error {}

function say(text) {
  banner.hidden = !text;
  banner.textContent = visible(text);
}

/** Show the view of the present address. */
async function show() {
  const [path, search] = location.hash.replace(/^#\/?/, "").split("?");
  const query = new URLSearchParams(search || "");
  let parts;
  try {
    parts = path.split("/").map(decodeURIComponent);
  } catch {
    parts = [""];
  }
  const [view, name, more, cursor] = parts;
  const mine = ++turn;
  let drawn = false;
  say("");
  try {
    // If the page already lists the event or the checkpoint, only the panel changes.
    const isEvent = view === "w" && more === "e";
    const isThread = view === "w" && more === "checkpoints";
    const hasPanel = isEvent || (isThread && cursor);
    const scenery = view !== "w" || more === "facts" ? "" : [isThread ? "checkpoints" : "line", name, isThread ? query : ""].join("/");
    const beside = hasPanel && shown === scenery && document.querySelector(`[data-cursor="${Number(cursor)}"]`);
    panel.hidden = panel.hidden || !hasPanel;
    if (beside) {
      mark(cursor);
      beside.scrollIntoView({ block: "nearest" });
    } else {
      news = null;
      shown = scenery;
      scene++;
      document.title = name ? `${visible(name)} · Runic Redis` : "Runic Redis";
      listen(view === "w" ? name : null);
      if (view === "w" && more === "facts") news = await showFacts(main, app, name, cursor);
      else if (isThread) news = await showCheckpoints(main, app, name, query, cursor);
      else if (view === "w") news = await showLine(main, app, name, query, cursor);
      else if (view === "f") news = await showFact(name);
      else if (view === "s") news = name ? await showParked(main, app, name) : await showSubscriptions(main, app);
      else news = await showWorkflows(main, app, query);
      if (latest) news({ ...latest, changed: [] });
      // Another address may have been opened meanwhile.
      if (mine !== turn) return;
      window.scrollTo(0, 0);
    }
    drawn = true;
    failed = false;
    if (isThread) markPath(cursor);
    if (isThread && cursor) showCheckpoint(panel, app, name, query, cursor);
    if (isEvent) await showEvent(panel, app, name, cursor);
    if (hasPanel) document.querySelector("[data-cursor][aria-current]")?.scrollIntoView({ block: "nearest" });
  } catch (error) {
    if (error instanceof Dropped) return;
    say(error.message);
    failed = !drawn;
    if (drawn) panel.hidden = true;
    else main.replaceChildren(el("a", { class: "crumb", href: "#/" }, "‹ Workflows"), el("p", { class: "card empty" }, "Nothing to show."));
  }
  if (mine !== turn) return;
  document.body.dataset.turn = turn;
}

async function showFact(hash) {
  const fact = await app.get(`api/fact?${new URLSearchParams({ hash })}`);
  const kept = ["Hash", el("span", { class: "mono" }, fact.hash)];
  const shown = fact.problem ? [about(kept), problemText(fact.problem)] : [about(kept, ["Size as JSON", `${fact.checked ? "" : "about "}${number(fact.value.length)} characters`], ["Verified", fact.checked ? "the value matches the hash" : "no, the value is too long"]), ...valueSection("Value", fact.value)];
  const card = el("div", { class: "card tile" }, ...shown);
  main.replaceChildren(el("a", { class: "crumb", href: "#/" }, "‹ Workflows"), el("div", { class: "head" }, el("h1", null, "Fact")), card);
  return () => {};
}

// The server sends a message every second.
const SILENCE_MS = 3000;
let source = null;
/** Listen for news, of a workflow or of all. A hidden tab does not listen. */
function listen(id, missed = false) {
  watching = id;
  source?.close();
  source = null;
  if (document.hidden) return;
  let opened = false;
  source = new EventSource(watching ? `api/live?${new URLSearchParams({ id: watching })}` : "api/live");
  expectNews();
  source.onopen = () => {
    missed ||= opened;
    opened = true;
  };
  source.onerror = () => {
    light("off", "not connected");
    // After an HTTP error, the browser does not connect again by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(watching, true), SILENCE_MS);
  };
  source.onmessage = ({ data }) => {
    expectNews();
    const word = JSON.parse(data);
    const back = latest?.problem && !word.problem;
    if (word.problem || back) say(word.problem);
    rate.textContent = `${number(word.history.at(-2))} events/s`;
    light(word.problem ? "off" : "on", word.problem ? "the store does not answer" : "live");
    drawRate(spark, word.history, 26);
    latest = word;
    if (failed && (back || missed)) show();
    // One refresh covers everything that happened while the page did not listen.
    missed ||= !news && word.changed.length > 0;
    if (!news) return;
    news({ ...word, missed });
    missed = false;
  };
}

let silence;
/** Show that the server is silent if no message comes in time: a stopped process leaves its connections open. */
function expectNews() {
  clearTimeout(silence);
  silence = setTimeout(() => light("off", "not connected"), SILENCE_MS);
}

function light(kind, label) {
  if (kind === "off") rate.textContent = "–";
  dot.className = `dot ${kind}`;
  dot.setAttribute("aria-label", label);
  dot.title = label;
}

document.addEventListener("visibilitychange", () => listen(watching, true));
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select")) return;
  if (event.key === "/" && document.getElementById("search")) {
    event.preventDefault();
    document.getElementById("search").focus();
  } else if (event.key === "Escape" && !panel.hidden) document.getElementById("close").click();
});
window.addEventListener("popstate", () => show());

const { server, namespace, feed } = await app.get("api/summary").catch((error) => (say(error.message), {}));
document.getElementById("subscriptions").hidden = !feed;
document.getElementById("where").replaceChildren(...(namespace ? [el("b", null, namespace), ` · ${server}`] : []));
await show();
