// The four views, and the drawer: family → its series → one series.

import { families, observed, quantile, rates, state, textOf, upper, KEPT } from "/dashboard/store.js";
import { heatmap, hover, lines, spark, words } from "/dashboard/charts.js";
import { show, showRate } from "/dashboard/units.js";

/** Cards that are drawn before more are asked for. */
const CARDS = 60;
/** Rows of a family's table. */
const ROWS = 60;
/** Ticks for which things stay where they are: what moves cannot be read. */
const STILL = 10;

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.onclick = value;
    else if (value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** A name that may be broken behind its underscores, and nowhere else. */
const breakable = (name) => name.split(/(?<=_)/).flatMap((part, at) => (at ? [document.createElement("wbr"), part] : [part]));

/** What a filter takes: text, label=value or /regex/, all of the words. */
export function filterOf(text) {
  const tests = text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const regex = /^\/(.+)\/$/.exec(word);
    if (regex) {
      try { const pattern = new RegExp(regex[1], "i"); return (one) => pattern.test(one.family.name) || pattern.test(one.text); } catch { return () => false; }
    }
    const label = /^([a-zA-Z_]\w*)=(.*)$/.exec(word);
    if (label) return (one) => String(one.labels[label[1]] ?? "").includes(label[2]);
    const lower = word.toLowerCase();
    return (one) => one.family.name.toLowerCase().includes(lower) || one.text.toLowerCase().includes(lower);
  });
  return (one) => tests.every((test) => test(one));
}

const OF_MACHINE = /^(qbus_(host|gpu|cgroup)_|node_|system_|DCGM_|gpu_)/;
const OF_PROCESSES = /^(qbus_process_|process_)/;
const OF_BUS = /^qbus_(bus|sampler|serve|push|statsd|family|overflow)_/;

export function viewOf(family) {
  if (OF_BUS.test(family.name)) return "bus";
  if (OF_PROCESSES.test(family.name)) return "workers";
  return OF_MACHINE.test(family.name) ? "machine" : "application";
}

/** Parts of a machine, in the order in which one looks at them; what of each comes first. */
const PARTS = [
  ["GPUs", /^(qbus_gpu_|DCGM_|gpu_)/, ["gpu_utilization", "memory_used_bytes", "power_watts", "temperature_celsius", "throttle_active", "xid_errors"]],
  ["Pressure", /pressure/, ["cpu_waiting", "memory_waiting", "io_waiting"]],
  ["Control groups", /cgroup/, ["memory_working_set", "cpu_seconds", "cpu_throttled_seconds"]],
  ["Memory", /memory|swap|page|oom|huge|vmstat|slab/, ["memory_used_ratio", "memory_used_bytes", "MemAvailable", "memory_available_bytes", "memory_cached_bytes", "swap_used", "page_faults", "oom_kills"]],
  ["Disks", /disk|filesystem/, ["read_bytes", "written_bytes", "io_time_seconds", "filesystem_avail"]],
  ["Network", /network|netstat|tcp|udp|conntrack|sock|arp/, ["receive_bytes", "transmit_bytes", "retransmitted", "connections_established"]],
  ["Processor", /cpu|load\d|context_switch|interrupt|intr|procs|forks|entropy/, ["cpu_usage", "cpu_percent", "cpu_seconds", "load1", "procs_running", "context_switches"]],
  ["More", /./, []],
];
/** What of the processes comes first. */
const OF_PROCESS = ["cpu_usage", "cpu_seconds", "resident_memory", "gpu_", "threads", "instances", "open_fds"];
const FIRST = ["GPUs", "Processor", "Memory", "Pressure", "Disks", "Network", "Control groups", "More"];
/** Cards of a part before more are asked for. */
const OF_PART = 8;

/** The families of a machine by part, each part in its order. */
function byPart(found) {
  const parts = new Map(FIRST.map((title) => [title, []]));
  for (const one of found) parts.get(PARTS.find(([, pattern]) => pattern.test(one.family.name))[0]).push(one);
  return [...parts].filter(([, all]) => all.length).map(([title, all]) => [title, placed(all, PARTS.find(([name]) => name === title)[2])]);
}

/** Those first whose names have one of these parts; the others stay in their order. */
function placed(all, first) {
  // What is in labels alone has no chart worth a place.
  const place = ({ family }) => { if (family.name.endsWith("_info")) return first.length + 1; const at = first.findIndex((part) => family.name.includes(part)); return at < 0 ? first.length : at; };
  return all.slice().sort((a, b) => place(a) - place(b));
}

/** Families of a view that the filter leaves something of, the busiest first. */
function chosen(view, filter) {
  const found = [];
  for (const family of families.values()) {
    if (viewOf(family) !== view || !family.series.size) continue;
    const some = [...family.series].filter(filter);
    if (some.length) found.push({ family, some });
  }
  return found.sort((a, b) => b.family.activity - a.family.activity || (a.family.name < b.family.name ? -1 : 1));
}

/** A card: a family, or what the filter leaves of it. */
class Card {
  constructor(family, open) {
    this.family = family;
    this.isVisible = false;
    this.now = element("span", { class: "now" });
    this.canvas = element("canvas", { role: "img" });
    this.element = element("button", { class: "card", onclick: () => open({ family: family.name }) },
      element("span", { class: "name" }, ...breakable(family.name)),
      element("span", { class: "help", title: family.help }, family.help || family.type), this.now, this.canvas);
    this.canvas.dataset.chart = "";
  }

  draw(some, span) {
    const { family, canvas } = this;
    const second = hover.second ?? state.second;
    let parts = [];
    if (family.columns) {
      const window = hover.second === null ? 10 : 3;
      const p = (q) => show(quantile(family, q, second - window + 1, second), family.unit);
      parts = [words(family, family.ring, second), ["k2", "p50 " + p(0.5)], ["k1", "p99 " + p(0.99)]];
      heatmap(canvas, family, span);
    } else if (family.type === "counter") {
      // Of many, each alone would lie on the ground; and there are six strokes, one of them the sum's.
      const few = some.length > 1 && some.length <= 5 ? some : [];
      parts = [words(family, family.ring, second)];
      lines(canvas, [family.ring, ...few.map((one) => one.ring)], span, (value) => showRate(value, family.unit));
      if (some.length > 1) parts.push(`of ${some.length} series`);
    } else {
      if (some.length <= 4) some.sort((a, b) => (a.text < b.text ? -1 : 1));
      const top = some.length > 6 ? some.slice().sort((a, b) => b.activity - a.activity || b.now - a.now).slice(0, 6) : some;
      lines(canvas, top.map((one) => one.ring), span, (value) => show(value, family.unit));
      // A ring has seven digits, which are too few for a point in time.
      const value = (one) => (hover.second === null ? show(one.now, family.unit) : words(family, one.ring, second));
      if (some.length === 1) parts = [value(some[0])];
      else if (some.length <= 4) {
        const [name] = labelOrder(some);
        parts = some.map((one, at) => ["k" + at, `${one.labels[name] ?? ""}: ${value(one)}`]);
      } else {
        const values = some.map((one) => one.now).filter((value) => !Number.isNaN(value));
        const [least, most] = [Math.min(...values), Math.max(...values)].map((value) => show(value, family.unit));
        parts = [least === most ? least : `${least} … ${most}`, `${some.length} series`];
      }
    }
    this.parts = parts;
  }

  /** Says in words what was drawn. Apart from that: what is measured after something was written is laid out anew. */
  say() {
    const { family, canvas, parts } = this, said = JSON.stringify(parts);
    if (said === this.said) return;
    this.said = said;
    this.now.replaceChildren(...parts.map((part) => Array.isArray(part) ? element("span", {}, element("span", { class: "key " + part[0] }), part[1]) : element("span", {}, part)));
    canvas.setAttribute("aria-label", `${family.name}: ${this.now.textContent}; its table opens with Enter`);
  }
}

/** Cards of a view; only what can be seen is drawn. */
export class Cards {
  constructor(open) {
    this.open = open;
    this.cards = new Map();
    this.shown = CARDS;
    /** Parts of the machine that are shown whole. */
    this.whole = new Set();
    this.ticks = 0;
    this.onSeen = () => {};
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) entry.target.card.isVisible = entry.isIntersecting;
      this.draw();
      this.onSeen(entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target.card.family));
    }, { rootMargin: "100px" });
  }

  /** Chooses and orders the cards anew: at once when asked for other ones, else seldom, as moving things cannot be read. */
  update(main, view, filterText, span) {
    const key = view + "\0" + filterText;
    this.span = span;
    if (this.key !== key) this.shown = CARDS;
    if (this.key !== key || [2, 4].includes(++this.ticks) || this.ticks % STILL === 0 || this.size !== families.size) this.choose(main, view, filterText, key);
    this.draw();
  }

  choose(main, view, filterText, key) {
    this.key = key;
    this.size = families.size;
    this.found = chosen(view, filterOf(filterText));
    const card = ({ family, some }) => {
      if (!this.cards.has(family.id)) {
        const card = new Card(family, this.open);
        card.element.card = card;
        this.cards.set(family.id, card);
        this.observer.observe(card.element);
      }
      const card = this.cards.get(family.id);
      card.some = some;
      return card.element;
    };
    const again = () => this.choose(main, view, filterText, key);
    const grid = (all, shown, more) => {
      const rest = all.length - shown;
      return [element("div", { class: "cards" }, ...all.slice(0, shown).map(card)), ...(rest > 0 ? [element("p", {}, element("button", { onclick: more }, `${rest} more`))] : [])];
    };
    const focused = document.activeElement;
    const none = this.found.length ? [] : [element("p", { class: "quiet" }, filterText ? "nothing matches the filter" : view === "application" ? "no metric of this kind so far; qbus emit jobs_total 1 --type counter makes one" : "no metric of this kind so far")];
    // A machine has parts, in an order of its own; all else goes by what moves.
    const parts = view === "machine" && !filterText
      ? byPart(this.found).flatMap(([title, all]) => [element("h2", {}, title), ...grid(all, this.whole.has(title) ? all.length : OF_PART, () => { this.whole.add(title); again(); })])
      : grid(view === "workers" ? placed(this.found, OF_PROCESS) : this.found, this.shown, () => { this.shown += CARDS; again(); });
    main.replaceChildren(...parts, ...none);
    if (focused && main.contains(focused)) focused.focus({ preventScroll: true });
  }

  draw() {
    const seen = [...this.cards.values()].filter((card) => card.isVisible && card.element.isConnected);
    for (const card of seen) card.draw(card.some, this.span);
    for (const card of seen) card.say();
  }
}

let order = { by: "rate", isUp: false };

/** The processes that are attached. */
export function workers(main, filterText, span, redraw) {
  const owners = state.ledger?.owners;
  if (!owners) return main.replaceChildren(element("p", { class: "quiet" }, "The snapshot does not know who is who, and the bus cannot be opened from here."));
  const columns = [["pid", "pid", 1], ["role", "role"], ["rate", "records/s", 1], ["delivered", "delivered", 1], ["dropped", "dropped", 1], ["lost", "torn, revoked", 1], ["lanes", "lanes", 1], ["fill_ratio", "lane", 1], ["command", "command"], ["line", "last minutes"]];
  const lower = filterText.toLowerCase();
  const rows = owners.map((owner) => ({ ...owner, lost: owner.torn + owner.revoked })).filter((owner) => `${owner.pid} ${owner.role} ${owner.command}`.toLowerCase().includes(lower));
  const rank = (value) => (typeof value === "number" && Number.isNaN(value) ? -1 : value ?? -1);
  rows.sort((a, b) => b.alive - a.alive || (order.isUp ? 1 : -1) * (rank(a[order.by]) < rank(b[order.by]) ? -1 : rank(a[order.by]) > rank(b[order.by]) ? 1 : 0) || a.pid - b.pid);
  const head = columns.map(([key, title, isNumber]) => element("th", { scope: "col", class: isNumber ? "number" : null, "aria-sort": order.by === key ? (order.isUp ? "ascending" : "descending") : null },
    element("button", { onclick: () => { order = { by: key, isUp: order.by === key && !order.isUp }; redraw(); } }, title + (order.by === key ? (order.isUp ? " ▲" : " ▼") : ""))));
  const sparks = [];
  const cell = (owner, [key, , isNumber]) => {
    const value = owner[key];
    if (key === "line") {
      const line = element("canvas", { role: "img", "aria-label": "records a second" });
      sparks.push([line, rates.get(owner.id)]);
      return element("td", {}, line);
    }
    // What tells commands apart stands behind the folder.
    if (key === "command") return element("td", { class: "text quiet", title: value }, value.replace(/^\S*\//, ""));
    const text = key === "pid" ? String(value) + (owner.alive ? "" : " gone") : key === "fill_ratio" ? show(value, "ratio") : isNumber ? show(value, "") : value;
    const isBad = (key === "dropped" || key === "lost") && value > 0;
    return element("td", { class: [isNumber ? "number" : "word", isBad ? "old" : "", owner.alive ? "" : "quiet"].join(" ") }, text);
  };
  main.replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows.map((owner) => element("tr", {}, ...columns.map((column) => cell(owner, column)))))));
  for (const [line, ring] of sparks) spark(line, ring, span);
}

/** What became of all records; above the cards of the bus. */
export function ledgerTable() {
  const { ledger } = state;
  if (!ledger) return element("p");
  const row = (name, ...cells) => element("tr", {}, element("th", { scope: "row" }, name), ...cells.map((cell) => element("td", { class: "text" }, cell)));
  const lost = ledger.records.lost.map((one) => row("lost: " + one.cause, one.records.toLocaleString("en"), one.records ? one.remedy : ""));
  const lanes = ledger.lanes ? [row("lanes", `${ledger.lanes.leased} leased, ${ledger.lanes.shared} shared of ${ledger.lanes.all}`, `the fullest ${show(ledger.lanes.fullest_ratio, "ratio")}`)] : [];
  const life = { true: "alive", false: "gone", null: "life unknown" }[String(ledger.aggregator.alive)];
  return element("table", {}, element("tbody", {},
    row("aggregator", `pid ${ledger.aggregator.pid}, ${life}`, `${ledger.aggregator.restarts} restarts, epoch ${ledger.epoch}`),
    row("delivered", ledger.records.delivered.toLocaleString("en"), showRate(state.rate, "")),
    ...lost, row("refused series", ledger.records.refused_series.toLocaleString("en"), ""), row("violations", ledger.records.violations.toLocaleString("en"), ""),
    ...lanes, row("snapshot", show(ledger.snapshot_bytes, "bytes"), `${ledger.series} series`)));
}

/** The label that tells most of the series apart, first. */
function labelOrder(all) {
  const values = new Map();
  for (const one of all) for (const [name, value] of Object.entries(one.labels)) {
    if (!values.has(name)) values.set(name, new Set());
    values.get(name).add(value);
  }
  return [...values].sort((a, b) => b[1].size - a[1].size || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
}

/** The order of the rows of the family that is open, and for how many ticks it has stood. */
const rowOrder = { family: null, ticks: 0, places: new Map() };

/** The busiest first, as they were a few ticks ago: who reads a row, or is about to open it, finds it where it was. */
function inRows(family, some) {
  const busiest = (a, b) => b.activity - a.activity || (a.text < b.text ? -1 : 1);
  if (rowOrder.family !== family || [2, 4].includes(++rowOrder.ticks) || rowOrder.ticks % STILL === 0) {
    if (rowOrder.family !== family) rowOrder.ticks = 0;
    rowOrder.family = family;
    rowOrder.places = new Map([...family.series].sort(busiest).map((one, place) => [one, place]));
  }
  const place = (one) => rowOrder.places.get(one) ?? Infinity;
  return some.sort((a, b) => place(a) - place(b) || busiest(a, b));
}

/** A family: its chart, and its series. */
export function familyDrawer(drawer, family, filterText, span, open, back) {
  const all = [...family.series].filter(filterOf(filterText));
  const some = inRows(family, all.length ? all : [...family.series]);
  const names = labelOrder(some);
  const canvas = element("canvas", { class: "big", role: "img", "data-chart": "" });
  const isObserved = Boolean(family.columns);
  const head = [...names, isObserved ? "observations" : family.type === "counter" ? "rate" : "now", ...(isObserved ? ["count", "mean"] : family.type === "counter" ? ["total"] : []), "last minutes"];
  const sparks = [];
  const rows = some.slice(0, ROWS).map((one) => {
    const line = element("canvas", { role: "img", "aria-label": "last minutes" });
    sparks.push([line, one]);
    const now = family.type === "gauge" ? show(one.now, family.unit) : showRate(one.now, isObserved ? "" : family.unit);
    const more = isObserved ? [show(one.value, ""), show(one.sum / one.value, family.unit)] : family.type === "counter" ? [show(one.value, family.unit)] : [];
    const row = element("tr", { class: "open", tabindex: 0, onclick: () => open({ family: family.name, series: `{${one.text}}` }) },
      ...names.map((name) => element("td", { class: "text" }, one.labels[name] ?? "")), ...[now, ...more].map((text) => element("td", { class: "number" }, text)), element("td", {}, line));
    row.onkeydown = (event) => { if (event.key === "Enter") row.onclick(); };
    return row;
  });
  drawer.replaceChildren(element("button", { onclick: back, title: "Esc" }, "close"), element("h2", {}, ...breakable(family.name)),
    element("p", { class: "quiet" }, `${family.help} `, element("em", {}, `${family.type}${family.unit ? ", " + family.unit : ""}, ${family.series.size} series`)), canvas, ...(isObserved ? [quantileTable(family)] : []),
    element("table", {}, element("thead", {}, element("tr", {}, ...head.map((name, at) => element("th", { scope: "col", class: at < names.length || at === head.length - 1 ? null : "number" }, name)))), element("tbody", {}, ...rows)),
    ...(some.length > ROWS ? [element("p", { class: "quiet" }, `${some.length - ROWS} more; a filter finds them`)] : []));
  if (isObserved) heatmap(canvas, family, span);
  else if (family.type === "counter") lines(canvas, [family.ring, ...some.slice(0, 5).map((one) => one.ring)], span, (value) => showRate(value, family.unit));
  else lines(canvas, some.slice(0, 6).map((one) => one.ring), span, (value) => show(value, family.unit));
  canvas.setAttribute("aria-label", `${family.name}: the table below says the same`);
  for (const [line, one] of sparks) spark(line, one.ring, span);
}

/** What the heatmap shows, in numbers. */
function quantileTable(family) {
  const times = [["10 s", 10], ["1 min", 60], ["5 min", 300]], quantiles = [0.5, 0.9, 0.99];
  const head = ["last", "observations", "p50", "p90", "p99"];
  const rows = times.map(([title, seconds]) => {
    const { rate, values } = observed(family, quantiles, seconds);
    const cells = [showRate(rate, ""), ...values.map((value) => show(value, family.unit))];
    return element("tr", {}, element("th", { scope: "row" }, title), ...cells.map((text) => element("td", { class: "number" }, text)));
  });
  return element("table", { class: "small" }, element("thead", {}, element("tr", {}, ...head.map((name, at) => element("th", { scope: "col", class: at ? "number" : null }, name)))), element("tbody", {}, ...rows));
}

/** Exemplars of a series, and when they were asked for. */
const exemplars = new WeakMap();

/** The traces of a series; asked for while it is looked at, not more than every five seconds. */
function tracesOf(one) {
  const known = exemplars.get(one);
  if (!known || performance.now() - known.asked > 5000) {
    exemplars.set(one, { asked: performance.now(), found: known?.found || [] });
    fetch("/api/v1/series?name[]=" + encodeURIComponent(one.family.name)).then((answer) => (answer.ok ? answer.json() : null)).then((document) => {
      const mine = document?.metrics.find((metric) => textOf(metric.labels) === one.text);
      if (mine) exemplars.get(one).found = mine.exemplars || [];
    }).catch(() => {});
  }
  const { found } = exemplars.get(one);
  if (!found.length) return [];
  const rows = found.slice().sort((a, b) => b.value - a.value).map((exemplar) => element("tr", {},
    element("td", {}, element("code", {}, exemplar.trace_id)), element("td", { class: "number" }, show(exemplar.value, one.family.unit)), element("td", { class: "number" }, new Date(exemplar.timestamp * 1000).toLocaleTimeString("en-GB"))));
  return [element("h2", {}, "Traces, the last of each bucket"), element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "trace"), element("th", { scope: "col", class: "number" }, "value"), element("th", { scope: "col", class: "number" }, "at"))), element("tbody", {}, ...rows))];
}

/** One series: its chart, its buckets, and its values by time. */
export function seriesDrawer(drawer, one, span, back) {
  const { family } = one;
  const canvas = element("canvas", { class: "big", role: "img", "data-chart": "", "aria-label": "the table below says the same" });
  const times = [];
  for (let s = state.second; s > state.second - Math.min(span, 60); s--) {
    const value = one.ring && s > state.second - KEPT ? one.ring[s % KEPT] : NaN;
    if (!Number.isNaN(value)) times.push(element("tr", {}, element("td", {}, new Date(s * 1000).toLocaleTimeString("en-GB")), element("td", { class: "number" }, words(family, one.ring, s))));
  }
  const buckets = one.buckets ? [element("h2", {}, "Buckets, since the start"), element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "up to"), element("th", { scope: "col", class: "number" }, "observations"))),
    element("tbody", {}, ...[...one.buckets].sort((a, b) => a[0] - b[0]).map(([index, count]) => element("tr", {}, element("td", {}, show(upper(family, index), family.unit)), element("td", { class: "number" }, count.toLocaleString("en"))))))] : [];
  drawer.replaceChildren(element("button", { onclick: back, title: "Esc" }, "back"), element("h2", {}, family.name),
    element("p", {}, Object.keys(one.labels).length ? element("code", {}, `{${one.text}}`) : element("span", { class: "quiet" }, "no labels")),
    element("p", { class: "quiet" }, family.help), canvas, ...tracesOf(one), ...buckets,
    element("h2", {}, "The last minute"), element("table", {}, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "time"), element("th", { scope: "col", class: "number" }, family.type === "gauge" ? "value" : "a second"))), element("tbody", {}, ...times)));
  const format = (value) => (family.type === "gauge" ? show(value, family.unit) : showRate(value, family.type === "counter" ? family.unit : ""));
  lines(canvas, [one.ring], span, format);
}

export const findSeries = (family, labels) => [...family.series].find((one) => `{${one.text}}` === labels);
export const findFamily = (name) => [...families.values()].find((family) => family.name === name && family.series.size);
