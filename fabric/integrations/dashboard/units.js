// Numbers as people read them: three or four figures, and a unit.

const NONE = "–";

function figures(value, digits) {
  return value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

// Three significant digits, never more than two after the point.
function three(value) {
  const size = Math.abs(value);
  return figures(value, size >= 99.95 || size === 0 ? 0 : size >= 9.995 ? 1 : 2);
}

// The first unit that leaves less than `step` of it: [number, unit].
function scaled(value, units, step) {
  let index = 0;
  while (index < units.length - 1 && Math.abs(value) >= step * 0.9995) {
    value /= step;
    index += 1;
  }
  return [value, units[index]];
}

function asCount(value) {
  return value === null ? [NONE, ""] : [figures(value, 0), ""];
}

// As many digits as there is room for.
function asMany(value) {
  if (value < 1e6) return asCount(value);
  const [number, unit] = scaled(value / 1e6, ["M", "G", "T"], 1000);
  return [three(number), unit];
}

function asRate(value) {
  if (value === null) return [NONE, ""];
  if (value < 100000) return [value > 0 && value < 10 ? figures(value, 1) : figures(value, 0), "/s"];
  const [number, unit] = scaled(value / 1000, ["k/s", "M/s", "G/s"], 1000);
  return [three(number), unit];
}

function asTime(seconds) {
  if (seconds === null) return [NONE, ""];
  if (seconds === 0) return ["0", "s"];
  const [number, unit] = scaled(seconds * 1e9, ["ns", "µs", "ms", "s"], 1000);
  return [three(number), unit];
}

function asBytes(bytes) {
  if (bytes === null) return [NONE, ""];
  const [number, unit] = scaled(bytes, ["B", "KiB", "MiB", "GiB", "TiB"], 1024);
  return [unit === "B" ? figures(number, 0) : three(number), unit];
}

function asShare(share) {
  return share === null ? [NONE, ""] : [figures(100 * share, share < 0.0995 && share > 0 ? 1 : 0), "%"];
}

function words(format, value) {
  const [number, unit] = format(value);
  return unit ? `${number} ${unit}` : number;
}

// Round numbers of an axis, without zeros behind the point.
function tick(format, value) {
  return words(format, value).replace(/\.0+(?= |$)/, "").replace(/(\.[1-9])0(?= |$)/, "$1");
}

function ago(seconds) {
  return seconds < 90 ? `${figures(seconds, 0)} s ago` : `${figures(seconds / 60, 0)} min ago`;
}
