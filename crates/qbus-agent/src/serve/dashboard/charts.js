// Lines, heatmaps and sparklines on canvases. A second without a value is a gap, and stays one.

import { BRIDGE, KEPT, OLD, age, extent, smoothed, state, upper } from "/dashboard/store.js";
import { show, showRate } from "/dashboard/units.js";

let colours = {};
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(name).trim();
  colours = { lines: [0, 1, 2, 3, 4, 5].map((i) => read("--c" + i)), quiet: read("--quiet"), line: read("--line"), text: read("--text"), ground: read("--panel") };
}
readColours();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColours);

/** The second that the pointer is at, on whichever chart. */
export const hover = { second: null };

function begin(canvas) {
  const scale = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "10px system-ui, sans-serif";
  return { context, width, height };
}

const at = (ring, second) => (ring && second > state.second - KEPT && second <= state.second ? ring[second % KEPT] : NaN);

/** Below the chart, for how far it reaches back. */
const FOOT = 12;

/** Draws rings over the last seconds, with the ends of both scales. */
export function lines(canvas, rings, asked, format) {
  const span = extent(asked);
  const { context, width, height: all } = begin(canvas);
  const height = all - FOOT;
  const first = state.second - span + 1;
  let low = 0, high = -Infinity;
  for (const ring of rings) {
    for (let s = first; s <= state.second; s++) {
      const value = at(ring, s);
      if (value > high) high = value;
      if (value < low) low = value;
    }
  }
  if (high === -Infinity) return empty(context, width, height);
  if (high <= low) high = low + 1;
  const x = (s) => (s - first + 0.5) / span * width;
  const y = (value) => height - 2 - (value - low) / (high - low) * (height - 14);
  rings.forEach((ring, index) => {
    context.strokeStyle = colours.lines[index % 6];
    context.lineWidth = 1.5;
    // Colour is not all that tells them apart.
    context.setLineDash([[], [6, 3], [2, 2], [8, 3, 2, 3], [1, 3], [12, 3]][index % 6]);
    stroke(context, (s) => at(ring, s), first, x, y);
  });
  context.setLineDash([]);
  label(context, format(high), 2, 10);
  foot(context, span, width, all, format(low));
  cross(context, x, first, height);
}

/** The line below a chart: since when, and the lower end of its scale. */
function foot(context, span, width, height, low) {
  context.strokeStyle = colours.line;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, height - FOOT + 0.5);
  context.lineTo(width, height - FOOT + 0.5);
  context.stroke();
  context.fillStyle = colours.quiet;
  // The newest column is not now when nobody commits any more.
  const late = age() > OLD ? Math.round(age()) : 0;
  const ago = (seconds) => (seconds < 120 ? seconds + " s" : Math.round(seconds / 60) + " min") + " ago";
  context.fillText(`${low} · ${ago(span + late)}`, 2, height - 2);
  context.textAlign = "right";
  context.fillText(late ? ago(late) : "now", width - 2, height - 2);
  context.textAlign = "left";
}

function stroke(context, value, first, x, y) {
  let before = null;
  context.beginPath();
  for (let s = first; s <= state.second; s++) {
    const now = value(s);
    if (Number.isNaN(now)) continue;
    if (before !== null && s - before <= BRIDGE) context.lineTo(x(s), y(now));
    else { context.moveTo(x(s) - 0.5, y(now)); context.lineTo(x(s), y(now)); }
    before = s;
  }
  context.stroke();
}

/** Buckets over time, darker where more was observed, with the median and the 99th percentile. */
export function heatmap(canvas, family, asked) {
  const span = extent(asked);
  const { context, width, height: all } = begin(canvas);
  const height = all - FOOT;
  const first = state.second - span + 1;
  const step = Math.max(1, Math.ceil(span / (width / 4)));
  const indices = new Set();
  const cells = [];
  for (let s = first; s <= state.second; s += step) {
    const cell = new Map();
    for (let t = s; t < s + step && t <= state.second; t++) {
      const column = t > state.second - KEPT ? family.columns[t % KEPT] : undefined;
      if (column) for (const [index, count] of column) { cell.set(index, (cell.get(index) || 0) + count); indices.add(index); }
    }
    cells.push([s, cell]);
  }
  if (!indices.size) return empty(context, width, height);
  const order = [...indices].sort((a, b) => a - b);
  const rows = family.type === "histogram" ? range(order[0], order[order.length - 1]) : order;
  const row = new Map(rows.map((index, place) => [index, place]));
  const most = Math.max(...cells.map(([, cell]) => Math.max(0, ...cell.values())));
  const x = (s) => (s - first) / span * width;
  const tall = (height - 2) / rows.length;
  context.fillStyle = colours.lines[0];
  for (const [s, cell] of cells) {
    for (const [index, count] of cell) {
      context.globalAlpha = 0.08 + 0.62 * Math.sqrt(count / most);
      context.fillRect(x(s), height - 1 - (row.get(index) + 1) * tall, Math.max(1, width * step / span), Math.max(1, tall - 0.5));
    }
  }
  context.globalAlpha = 1;
  // A quantile lies in the row of its bucket, between its ends.
  const y = (value) => {
    const place = rows.findIndex((index) => upper(family, index) >= value);
    if (place < 0) return 1;
    const high = upper(family, rows[place]), low = place > 0 ? upper(family, rows[place - 1]) : 0;
    const part = high === Infinity || high <= low ? 0.5 : (value - low) / (high - low);
    return height - 1 - (place + Math.min(1, Math.max(0, part))) * tall;
  };
  [[0.5, 2, []], [0.99, 1, [5, 3]]].forEach(([q, colour, dash]) => {
    context.strokeStyle = colours.lines[colour];
    context.lineWidth = 1.5;
    context.setLineDash(dash);
    const ring = smoothed(family, q);
    const value = (s) => at(ring, s);
    strokeSteps(context, value, first, step, x, y);
  });
  context.setLineDash([]);
  label(context, show(upper(family, rows[rows.length - 1]), family.unit), 2, 10);
  foot(context, span, width, all, show(bottom(family, rows[0]), family.unit));
  cross(context, (s) => x(s + 0.5), first, height);
}

/** The lower end of a bucket. */
function bottom(family, index) {
  if (family.type === "summary") return index === -Infinity ? 0 : upper(family, index - 1);
  return index > 0 ? upper(family, index - 1) : Math.min(0, upper(family, index));
}

function strokeSteps(context, value, first, step, x, y) {
  let before = null;
  context.beginPath();
  for (let s = first; s <= state.second; s += step) {
    const now = value(s);
    if (Number.isNaN(now)) continue;
    if (before !== null && s - before <= Math.max(BRIDGE, 2 * step)) context.lineTo(x(s), y(now));
    else context.moveTo(x(s), y(now));
    before = s;
  }
  context.stroke();
}

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

function label(context, text, x, y) {
  const width = context.measureText(text).width;
  context.globalAlpha = 0.8;
  context.fillStyle = colours.ground;
  context.fillRect(x - 1, y - 9, width + 2, 12);
  context.globalAlpha = 1;
  context.fillStyle = colours.quiet;
  context.fillText(text, x, y);
}

function cross(context, x, first, height) {
  if (hover.second === null || hover.second < first) return;
  context.strokeStyle = colours.text;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x(hover.second), 0);
  context.lineTo(x(hover.second), height);
  context.stroke();
}

function empty(context, width, height) {
  context.fillStyle = colours.quiet;
  context.fillText("nothing in this time", width / 2 - 45, height / 2);
}

/** A small line without a scale. */
export function spark(canvas, ring, asked) {
  const span = extent(asked);
  const { context, width, height } = begin(canvas);
  const first = state.second - span + 1;
  let low = Infinity, high = -Infinity;
  for (let s = first; s <= state.second; s++) {
    const value = at(ring, s);
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (high === -Infinity) return;
  if (low > 0) low = Math.min(low, high / 2);
  if (high <= low) high = low + 1;
  context.strokeStyle = colours.lines[0];
  context.lineWidth = 1.2;
  stroke(context, (s) => at(ring, s), first, (s) => (s - first + 0.5) / span * width, (value) => height - 1 - (value - low) / (high - low) * (height - 2));
}

/** What a family or series is at a second, in words. */
export function words(family, ring, second) {
  const value = at(ring, second);
  return family.type === "gauge" ? show(value, family.unit) : showRate(value, family.type === "counter" ? family.unit : "");
}
