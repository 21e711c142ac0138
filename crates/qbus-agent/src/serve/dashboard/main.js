// The page: the stream of events, the address, the keys.

import { OLD, age as ageOf, extent, fill, series, state, take } from "/dashboard/store.js";
import { hover } from "/dashboard/charts.js";
import { show, showRate } from "/dashboard/units.js";
import { Cards, element, familyDrawer, findFamily, findSeries, ledgerTable, seriesDrawer, workers } from "/dashboard/views.js";

const $ = (id) => document.getElementById(id);
const main = $("main"), drawer = $("drawer");
const cards = new Cards(open);
const asked = new Set();
let isWaiting = false;

/** What is shown is what the address says: a link shows a colleague the same. */
function address() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  return { view: parameters.get("view") || "application", filter: parameters.get("filter") || "", span: Number(parameters.get("span")) || 300, family: parameters.get("family"), series: parameters.get("series") };
}

function go(change, isStep = true) {
  const parameters = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(change)) {
    if (value === null || value === "") parameters.delete(name);
    else parameters.set(name, value);
  }
  const hash = "#" + parameters;
  if (isStep) location.hash = hash;
  else history.replaceState(null, "", hash);
  draw();
}

function open({ family, series: labels = null }) {
  go({ family, series: labels });
  drawer.focus();
}

function back() {
  const { family, series: labels } = address();
  if (labels !== null) go({ series: null });
  else if (family) {
    go({ family: null });
    const card = [...cards.cards.values()].find((card) => card.family.name === family);
    card?.element.focus({ preventScroll: true });
  }
}

function draw() {
  const { view, filter, span, family, series: labels } = address();
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (document.activeElement !== $("filter")) $("filter").value = filter;
  $("span").value = String(span);
  // A table, where the view has one, stands above its cards.
  const above = { workers: ["Attached processes", "By role and command"], bus: ["Ledger", "Metrics of the bus"] }[view];
  if (main.dataset.view !== view) {
    main.dataset.view = view;
    const parts = above ? [element("h2", {}, above[0]), element("div", { id: "above" }), element("h2", {}, above[1])] : [];
    main.replaceChildren(...parts, element("div", { id: "cards" }));
    cards.key = null;
  }
  if (view === "workers") workers($("above"), filter, span, draw);
  else if (view === "bus") $("above").replaceChildren(ledgerTable());
  cards.update($("cards"), view, filter, span);
  drawDrawer(family, labels, filter, span);
}

function drawDrawer(name, labels, filter, span) {
  const family = name && findFamily(name), one = family && labels !== null && findSeries(family, labels);
  drawer.hidden = !family;
  if (!family) return;
  const focused = drawer.contains(document.activeElement) ? [...drawer.querySelectorAll("button, tr")].indexOf(document.activeElement) : -2;
  if (one) seriesDrawer(drawer, one, span, back);
  else familyDrawer(drawer, family, filter, span, open, back);
  if (focused >= 0) drawer.querySelectorAll("button, tr")[focused]?.focus({ preventScroll: true });
}

/** The first line: whose, how old, how much, how much of it lost. */
function drawHead() {
  const { ledger } = state;
  if (!ledger) return;
  $("bus").textContent = ledger.bus;
  document.title = `qbus ${ledger.bus}`;
  const age = ageOf();
  const isOld = age > OLD || state.down;
  $("age").textContent = `${age < 10 ? age.toFixed(1) : show(age, "seconds").replace(" s", "")}${age < 60 ? " s" : ""} old${isOld && ledger.aggregator.alive === false ? ": the aggregator is gone" : ""}${state.paused ? " (paused)" : ""}`;
  $("age").className = isOld ? "old" : "";
  $("rate").textContent = Number.isNaN(state.rate) || isOld ? "" : showRate(state.rate, "").replace("/s", " records/s");
  const lost = ledger.records.lost.filter((one) => one.records);
  const sum = lost.reduce((all, one) => all + one.records, 0);
  $("lost").textContent = sum ? `${sum.toLocaleString("en")} lost` : "nothing lost";
  $("lost").className = sum ? "old" : "";
  $("count").textContent = `${series.size.toLocaleString("en")} series`;
  drawBanner(lost, ledger);
}

function drawBanner(lost, ledger) {
  const texts = [];
  if (state.down) texts.push(state.down);
  for (const one of lost) {
    const worst = (ledger.owners || []).filter((owner) => owner.dropped || owner.torn || owner.revoked).sort((a, b) => b.dropped + b.torn + b.revoked - a.dropped - a.torn - a.revoked)[0];
    const who = worst ? `, most by pid ${worst.pid}${worst.role ? " (" + worst.role + ")" : ""}` : "";
    texts.push(`${one.records.toLocaleString("en")} records lost (${one.cause}${who}): ${one.remedy}`);
  }
  const banner = $("banner");
  banner.hidden = !texts.length;
  banner.className = state.lostNow > 0 || state.down ? "now" : "";
  const text = texts.join(" · ");
  if (banner.textContent !== text) banner.textContent = text;
}

/** Families with more series are shown from now on alone: their histories would be megabytes. */
const FILLED = 20;
/** Series of one request. */
const ASKED = 60;

/** The seconds before the page was opened, of the families that can be seen. */
cards.onSeen = async (seen) => {
  const rest = seen.filter((family) => family && (family.type === "counter" || family.type === "gauge") && family.series.size <= FILLED && !asked.has(family.name));
  rest.forEach((family) => asked.add(family.name));
  while (rest.length) {
    const names = [];
    for (let count = 0; rest.length && count < ASKED; ) {
      const family = rest.shift();
      names.push("name[]=" + encodeURIComponent(family.name));
      count += family.series.size;
    }
    try {
      const answer = await fetch("/api/v1/series?history=1&" + names.join("&"));
      if (!answer.ok) return;
      fill(await answer.json());
      schedule();
    } catch { return; }
  }
};

/** Draws once, before the next frame, whatever happened. */
function schedule() {
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    const begun = performance.now();
    drawHead();
    if (!state.paused) draw();
    document.body.dataset.drawMs = (performance.now() - begun).toFixed(1);
  });
}

function listen() {
  const events = new EventSource("/events");
  for (const name of ["full", "delta"]) {
    events.addEventListener(name, (event) => { take(name, JSON.parse(event.data)); schedule(); });
  }
  events.addEventListener("down", (event) => { state.down = JSON.parse(event.data).reason; schedule(); });
  events.onerror = () => {
    state.down = "the server does not answer; trying again";
    schedule();
    // A browser gives up where the answer was no stream.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

$("filter").addEventListener("input", () => go({ filter: $("filter").value }, false));
$("span").addEventListener("change", () => go({ span: $("span").value }));
$("help").onclick = () => $("keys").showModal();
$("pause").onclick = () => {
  state.paused = !state.paused;
  $("pause").setAttribute("aria-pressed", String(state.paused));
  schedule();
};
addEventListener("hashchange", draw);
addEventListener("resize", schedule);
setInterval(drawHead, 500);

addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, select, dialog *");
  if (event.key === "Escape") {
    if (event.target === $("filter")) $("filter").blur();
    else back();
    return;
  }
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const views = { 1: "application", 2: "workers", 3: "machine", 4: "bus" };
  if (views[event.key]) go({ view: views[event.key], family: null, series: null });
  else if (event.key === "/") $("filter").focus();
  else if (event.key === "p") $("pause").click();
  else if (event.key === "w") go({ span: { 60: 300, 300: 900, 900: 60 }[address().span] ?? 300 });
  else if (event.key === "?") $("keys").showModal();
  else return;
  event.preventDefault();
});

/** One crosshair moves over all charts. */
addEventListener("pointermove", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  const before = hover.second;
  if (chart) {
    const box = chart.getBoundingClientRect(), span = extent(address().span);
    hover.second = state.second - span + 1 + Math.min(span - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * span)));
  } else hover.second = null;
  if (hover.second !== before) requestAnimationFrame(() => cards.draw());
});

draw();
listen();
