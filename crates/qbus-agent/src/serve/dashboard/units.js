// Numbers as people read them: three significant digits, and the unit that the metric's name says.

const TIMES = [[1, "s"], [1e-3, "ms"], [1e-6, "µs"], [1e-9, "ns"]];
const THOUSANDS = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
const POWERS = [[2 ** 40, "TiB"], [2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]];

/** The unit of a family: its own, or what its name ends with. */
export function unitOf(family) {
  const name = family.name.replace(/_total$/, "");
  for (const unit of ["seconds", "bytes", "ratio", "percent", "celsius", "watts", "joules", "hertz"]) {
    if (family.unit === unit || name.endsWith("_" + unit)) return unit;
  }
  return family.unit || "";
}

function digits(value) {
  const size = Math.abs(value);
  if (size < 1000 && Number.isInteger(value)) return String(value);
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1);
  if (size >= 1) return value.toFixed(2);
  if (size >= 1e-4) return value.toPrecision(3);
  return value.toExponential(2);
}

function scaled(value, steps, rest) {
  const size = Math.abs(value);
  for (const [step, name] of steps) {
    if (size >= step * 0.9995) return digits(value / step) + " " + name;
  }
  return digits(value) + rest;
}

/** Of small parts no more than hundredths are of interest. */
const percent = (value) => (Math.abs(value) < 1 && value ? (Math.abs(value) < 0.005 ? "< 0.01" : value.toFixed(2)) : digits(value)) + " %";

/** A value with its unit. */
export function show(value, unit) {
  if (value === undefined || value === null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "+∞" : "−∞";
  switch (unit) {
    case "seconds": {
      const size = Math.abs(value);
      if (size >= 3e8) return new Date(value * 1000).toISOString().slice(0, 19) + "Z";
      if (size >= 86400) return digits(value / 86400) + " d";
      if (size >= 3600) return digits(value / 3600) + " h";
      if (size === 0) return "0 s";
      const [step, name] = TIMES.find(([step]) => size >= step * 0.9995) || TIMES[3];
      return digits(value / step) + " " + name;
    }
    case "bytes": return scaled(value, POWERS, " B");
    case "ratio": return percent(value * 100);
    case "percent": return percent(value);
    case "celsius": return digits(value) + " °C";
    case "watts": return scaled(value, THOUSANDS, " W").replace(/ ([TGMk])$/, " $1W");
    case "hertz": return scaled(value, THOUSANDS, " Hz").replace(/ ([TGMk])$/, " $1Hz");
    default: return scaled(value, THOUSANDS, "");
  }
}

/** What of a family is shown a second: a rate, with its unit. Seconds a second are a share of a core. */
export function showRate(value, unit) {
  if (unit === "seconds") return show(value, "ratio");
  const text = show(value, unit);
  return text === "–" ? text : text + "/s";
}
