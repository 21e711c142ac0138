// What the server has told: families, their series, and what each was in the last 15 minutes, by second.

import { unitOf } from "/dashboard/units.js";

/** Seconds that are kept. Second s lies in column s % KEPT of each ring. */
export const KEPT = 900;
/** A step this long is still drawn as a line: a second without an event is no gap. */
export const BRIDGE = 3;

export const families = new Map();
export const series = new Map();
/** The seconds of the oldest and the newest column; what the ledger said; why there is nothing new. */
export const state = { first: Infinity, second: 0, unixMs: 0, epoch: 0, ledger: null, rate: NaN, lostNow: 0, heard: 0, down: "", paused: false };

/** What each owner emitted a second, by its id. */
export const rates = new Map();

/** How long ago the newest column was committed, in seconds. */
export const age = () => (state.ledger ? state.ledger.age_seconds + (performance.now() - state.heard) / 1000 : 0);

/** What is older than this is not what is now. */
export const OLD = 3;

/** The seconds that are drawn: no more than are known, and at least a minute. */
export const extent = (span) => Math.min(span, Math.max(60, state.second - state.first + 1));

/** What the sampler and the bus itself emit, some of it only every few seconds. */
const SAMPLED = /^(qbus_|node_|DCGM_|system_|process_)/;
const SELDOM = 7;

const ring = () => new Float32Array(KEPT).fill(NaN);
const isObserved = (family) => family.type === "histogram" || family.type === "summary";

/** Takes an event over. */
export function take(name, event) {
  const before = name === "full" ? leave() : null;
  for (const said of event.families) {
    const key = JSON.stringify([said.name, said.type, said.buckets]), known = before?.families.get(key);
    if (!known) families.set(said.id, { ...said, key, unit: unitOf(said), isSampled: said.type === "counter" && SAMPLED.test(said.name), series: new Set(), ring: null, columns: isObserved(said) ? new Array(KEPT) : null, activity: 0, total: NaN });
    else families.set(said.id, Object.assign(known, said, { unit: unitOf(said) }));
  }
  for (const [id, familyId, labels] of event.series) {
    const family = families.get(familyId), text = textOf(labels);
    const one = before?.series.get(family.key + text) || { labels, value: null, changed: -Infinity, ring: null, buckets: null, marks: [], activity: 0, now: NaN, text };
    series.set(id, Object.assign(one, { id, family }));
    family.series.add(one);
  }
  for (const id of event.gone) forget(series.get(id));
  advance(event);
}

/** Empties the tables, and gives what was in them by what it is: a server that was started anew numbers anew. */
function leave() {
  const before = { families: new Map(), series: new Map() };
  for (const family of families.values()) {
    before.families.set(family.key, family);
    family.series.clear();
  }
  for (const one of series.values()) before.series.set(one.family.key + one.text, one);
  families.clear();
  series.clear();
  return before;
}

function forget(one) {
  if (!one) return;
  series.delete(one.id);
  one.family.series.delete(one);
}

export const textOf = (labels) => Object.entries(labels).map(([name, value]) => `${name}="${value}"`).join(", ");

function advance(event) {
  const seconds = (event.unix_ms - state.unixMs) / 1000;
  const isNew = event.epoch !== state.epoch || state.unixMs === 0;
  const second = Math.floor(event.unix_ms / 1000);
  const isContinued = state.unixMs > 0 && seconds > 0 && seconds < 60;
  if (isNew) clear(state.second, second);
  if (isNew && isContinued) {
    const before = state.ledger.records, after = event.ledger.records;
    const lost = (records) => records.lost.reduce((sum, one) => sum + one.records, 0);
    state.rate = (after.delivered - before.delivered) / seconds;
    state.lostNow = lost(after) - lost(before);
    owners(state.ledger, event.ledger, seconds);
  }
  state.ledger = event.ledger;
  state.heard = performance.now();
  state.down = "";
  const changed = new Set();
  for (const [id, ...values] of event.values) {
    const one = series.get(id);
    if (!one) continue;
    changed.add(one);
    update(one, values, isContinued ? seconds : NaN, event.unix_ms / 1000);
  }
  if (isNew) {
    for (const one of series.values()) if (!changed.has(one)) rest(one, second);
    for (const family of families.values()) sum(family, second);
    remember(event.ledger.owners || [], second);
    state.first = Math.min(state.first, second);
    state.second = second;
    state.unixMs = event.unix_ms;
    state.epoch = event.epoch;
  }
}

/** What an owner did a second: counted from the ledger before. */
function owners(before, after, seconds) {
  const known = new Map((before.owners || []).map((owner) => [owner.id, owner]));
  for (const owner of after.owners || []) {
    const was = known.get(owner.id);
    owner.rate = was ? (owner.delivered - was.delivered) / seconds : NaN;
  }
}

function remember(owners, second) {
  const here = new Set(owners.map((owner) => owner.id));
  for (const id of [...rates.keys()]) if (!here.has(id)) rates.delete(id);
  for (const owner of owners) {
    if (!rates.has(owner.id)) rates.set(owner.id, ring());
    rates.get(owner.id)[second % KEPT] = owner.rate ?? NaN;
  }
}

/** Empties the columns after one second up to another: all of them at first, when hardly a series has any. */
function clear(from, to) {
  const columns = Array.from({ length: Math.max(0, Math.min(to - from, KEPT)) }, (_, back) => (to - back) % KEPT);
  const empty = (ring, nothing) => { for (const column of columns) ring[column] = nothing; };
  for (const one of series.values()) if (one.ring) empty(one.ring, NaN);
  for (const one of rates.values()) empty(one, NaN);
  for (const family of families.values()) {
    if (family.ring) empty(family.ring, NaN);
    if (family.columns) empty(family.columns, undefined);
  }
}

function put(one, second, value) {
  one.now = value;
  if (!one.ring) {
    // A series that never moved needs no memory of it.
    if (!value && one.family.type !== "gauge") return;
    one.ring = ring();
  }
  one.ring[second % KEPT] = value;
}

function update(one, values, seconds, time) {
  const type = one.family.type, second = Math.floor(time);
  const value = values[0] === null ? NaN : values[0];
  const before = one.value;
  one.value = value;
  if (type === "gauge") {
    one.activity = one.activity * 0.9 + (before === value ? 0 : 1);
    return put(one, second, value);
  }
  // A counter that is read every few seconds did not stand still in between: what it grew by is spread over them.
  const since = second - one.changed;
  const isSpread = one.family.isSampled && since <= SELDOM && seconds > 0;
  const isRestart = before === null || value < before;
  const sampled = isSpread && !isRestart ? sampledRate(one, time, value) : NaN;
  if (one.family.isSampled && (!isSpread || isRestart)) one.marks = [[time, value]];
  const rate = isRestart ? NaN : isSpread ? sampled : (value - before) / seconds;
  one.activity = one.activity * 0.9 + (rate || 0);
  one.changed = second;
  put(one, second, rate);
  for (let s = second - since + 1; isSpread && one.ring && s < second; s++) one.ring[s % KEPT] = rate;
  if (type === "histogram" || type === "summary") observe(one, values, second, before !== null && value >= before && seconds > 0);
}

/** Changes over which the rate of a counter is taken that is read at a rhythm of its own. */
const MARKS = 3;

/** Readings and events drift past each other: now an event has none, and then one has two. */
function sampledRate(one, time, value) {
  const [from, least] = one.marks[0];
  one.marks.push([time, value]);
  if (one.marks.length > MARKS) one.marks.shift();
  // Events may come sooner than readings: when another page is opened.
  return time - from < 0.5 ? one.now : (value - least) / (time - from);
}

/** A series that did not change: a gauge stays, a counter stands still. */
function rest(one, second) {
  one.activity *= 0.9;
  if (one.value === null) return;
  if (one.family.isSampled && second - one.changed < SELDOM) return;
  put(one, second, one.family.type === "gauge" ? one.value : 0);
}

/** Adds what was observed since the last event to the family's column. */
function observe(one, values, second, isContinued) {
  one.sum = values[1];
  const buckets = new Map();
  if (one.family.type === "histogram") {
    values.slice(2).forEach((count, index) => count && buckets.set(index, count));
  } else {
    if (values[2]) buckets.set(-Infinity, values[2]);
    const pairs = values[3];
    for (let i = 0; i < pairs.length; i += 2) buckets.set(pairs[i], pairs[i + 1]);
  }
  const before = one.buckets;
  one.buckets = buckets;
  if (!isContinued || !before) return;
  const column = (one.family.columns[second % KEPT] ||= new Map());
  for (const [index, count] of buckets) {
    const more = count - (before.get(index) || 0);
    if (more > 0) column.set(index, (column.get(index) || 0) + more);
  }
}

/** The family's own ring: the sum of its series' rates. A family of gauges has none: they need not add up. */
function sum(family, second) {
  let total = NaN, activity = 0;
  for (const one of family.series) {
    activity += one.activity;
    if (!Number.isNaN(one.now)) total = (Number.isNaN(total) ? 0 : total) + one.now;
  }
  family.activity = activity;
  family.total = total;
  if (family.type === "gauge") return;
  family.ring ||= ring();
  family.ring[second % KEPT] = total;
  if (family.columns && !Number.isNaN(total)) family.columns[second % KEPT] ||= new Map();
}

/** The upper end of a bucket. */
export function upper(family, index) {
  if (family.type === "summary") return index === -Infinity ? 0 : 2 ** (index / 4);
  return index < family.buckets.length ? family.buckets[index] : Infinity;
}

/** The value below which that part of the observations of these seconds lies; interpolated in its bucket. */
export function quantile(family, q, from, to) {
  const all = new Map();
  let total = 0;
  for (let s = from; s <= to; s++) {
    const column = s > state.second - KEPT ? family.columns[s % KEPT] : undefined;
    if (!column) continue;
    for (const [index, count] of column) { all.set(index, (all.get(index) || 0) + count); total += count; }
  }
  if (!total) return NaN;
  let seen = 0;
  for (const index of [...all.keys()].sort((a, b) => a - b)) {
    const count = all.get(index);
    if (seen + count >= q * total) {
      const high = upper(family, index);
      const low = index === -Infinity ? 0 : family.type === "summary" ? upper(family, index - 1) : index > 0 ? upper(family, index - 1) : Math.min(0, high);
      // What lies above the last bound is at least that bound; more is not known.
      return high === Infinity ? low : low + (high - low) * (q * total - seen) / count;
    }
    seen += count;
  }
  return NaN;
}

/** Seconds that a quantile in a chart is of. */
const SMOOTH = 5;

/** A quantile of the seconds up to each; those that are over are not asked for again. */
export function smoothed(family, q) {
  family.smoothed ||= new Map();
  if (!family.smoothed.has(q)) family.smoothed.set(q, { ring: ring(), until: state.first });
  const known = family.smoothed.get(q);
  // The newest second may still grow.
  for (let s = Math.max(known.until, state.second - KEPT + 1); s <= state.second; s++) known.ring[s % KEPT] = quantile(family, q, s - SMOOTH + 1, s);
  known.until = state.second;
  return known.ring;
}

/** What lies in some seconds: how many observations, and the values below which these parts of them are. */
export function observed(family, quantiles, seconds) {
  let count = 0, known = 0;
  const from = state.second - seconds + 1;
  for (let s = from; s <= state.second; s++) {
    const rate = family.ring ? family.ring[s % KEPT] : NaN;
    if (s > state.second - KEPT && !Number.isNaN(rate)) { count += rate; known++; }
  }
  return { rate: known ? count / known : NaN, values: quantiles.map((q) => quantile(family, q, from, state.second)) };
}

/** Fills the seconds before the page was opened, from the history that the server has. */
export function fill(document) {
  const byKey = new Map();
  for (const one of series.values()) byKey.set(one.family.name + "\0" + one.text, one);
  const filled = new Map();
  let most = 0;
  for (const [name, points] of Object.entries(document.history)) {
    const lines = new Map();
    for (const point of points) {
      const key = name + "\0" + textOf(point.labels);
      if (!lines.has(key)) lines.set(key, []);
      lines.get(key).push([point.timestamp, typeof point.value === "number" ? point.value : NaN]);
    }
    for (const [key, line] of lines) {
      const one = byKey.get(key);
      most = Math.max(most, line.length);
      if (one && (one.family.type === "gauge" || one.family.type === "counter")) filled.set(one, line);
    }
  }
  const newest = state.second, from = new Map();
  for (const [one, line] of filled) {
    const begin = fillOne(one, line, newest);
    // Of a longer one the beginning is not known; of the others there was nothing before.
    const family = one.family, known = line.length < most ? -Infinity : begin;
    from.set(family, Math.max(from.get(family) ?? -Infinity, known));
    state.first = Math.min(state.first, begin);
  }
  for (const [family, known] of from) if (family.type === "counter") fillSum(family, Math.max(known, state.first), newest);
}

/** Fills one series up to a second, as if it had been listened to; the first second that it says something of. */
function fillOne(one, line, newest) {
  const { family } = one, isCounter = family.type === "counter";
  one.ring ||= ring();
  const last = new Map();
  for (const [time, value] of line) last.set(Math.floor(time), value);
  const known = [...last].sort((a, b) => a[0] - b[0]);
  const set = (second, value) => {
    if (second > newest - KEPT && second <= newest && Number.isNaN(one.ring[second % KEPT])) one.ring[second % KEPT] = value;
  };
  known.forEach(([second, value], at) => {
    const before = known[at - 1];
    if (!isCounter) set(second, value);
    else if (before) {
      const more = Math.max(0, value - before[1]), since = second - before[0];
      const isSpread = family.isSampled && since <= SELDOM;
      for (let s = Math.max(before[0] + 1, newest - KEPT); isSpread && s < second; s++) set(s, more / since);
      set(second, isSpread ? more / since : more);
    }
    // Until the next point a gauge stays, and a counter stands still.
    const end = Math.min(newest, (known[at + 1]?.[0] ?? newest + 1) - 1);
    const isRest = !(isCounter && family.isSampled && known[at + 1] && known[at + 1][0] - second <= SELDOM);
    for (let s = Math.max(second + 1, newest - KEPT); isRest && s <= end; s++) set(s, isCounter ? 0 : value);
  });
  return Math.max(newest - KEPT + 1, known.length ? known[0][0] + (isCounter ? 1 : 0) : newest);
}

/** The sum of a family's rates in the seconds in which all of them are known. */
function fillSum(family, from, newest) {
  family.ring ||= ring();
  for (let s = Math.max(from, newest - KEPT + 1); s <= newest; s++) {
    if (!Number.isNaN(family.ring[s % KEPT])) continue;
    let total = 0;
    for (const one of family.series) if (one.ring) total += one.ring[s % KEPT] || 0;
    family.ring[s % KEPT] = total;
  }
}
