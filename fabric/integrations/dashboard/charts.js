// Draw into SVG. All sizes are CSS pixels, taken from the element each time, so that text keeps its size.

const SVG = "http://www.w3.org/2000/svg";

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Empty the drawing and return its size; null while it is not shown.
function canvas(svg) {
  const width = svg.clientWidth, height = svg.clientHeight;
  if (!width || !height) return null;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  return { width, height };
}

// A path through the points that have a value; a gap where there is none.
function pathThrough(points, x, y) {
  let path = "", down = false;
  for (const [at, value] of points) {
    if (value === null) { down = false; continue; }
    path += `${down ? "L" : "M"}${place(x(at), y(value))}`;
    down = true;
  }
  return path;
}

function drawSpark(svg, points, kind) {
  const size = canvas(svg);
  const known = points.filter(([, value]) => value !== null);
  if (!size || known.length < 2) return;
  const first = points[0][0], last = points[points.length - 1][0];
  const top = Math.max(...known.map(([, value]) => value)) || 1;
  const x = (at) => (size.width * (at - first)) / (last - first || 1);
  const y = (value) => size.height - 2 - ((size.height - 4) * value) / top;
  svg.append(element("path", { class: `curve ${kind}`, d: pathThrough(points, x, y) }));
}

// The least 1, 2 or 5 times a power of ten that is not below.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.9999);
}

// Lines of values over time: lines is [{name, kind, points: [[seconds, value], ...]}]. `log`: a logarithmic scale.
function drawCurves(svg, lines, format, seconds, log) {
  const size = canvas(svg);
  const values = lines.flatMap((line) => line.points.map(([, value]) => value)).filter((value) => value !== null && (!log || value > 0));
  if (!size) return;
  if (values.length < 2) {
    svg.append(element("text", { x: size.width / 2, y: size.height / 2, "text-anchor": "middle" }, "nothing yet"));
    return;
  }
  const left = 62, right = size.width - 8, low = size.height - 20, high = 10;
  const last = Math.max(...lines.flatMap((line) => line.points.map(([at]) => at)));
  const x = (at) => right - ((right - left) * (last - at)) / seconds;
  const [y, ticks] = log ? logScale(values, low, high) : linearScale(values, low, high);
  for (const value of ticks) {
    svg.append(element("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }));
    svg.append(element("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, tick(format, value)));
  }
  for (const [part, anchor] of [[1, "start"], [0.5, "middle"], [0, "end"]]) {
    const label = part ? ago(seconds * part) : "now";
    svg.append(element("text", { x: x(last - seconds * part), y: size.height - 4, "text-anchor": anchor }, label));
  }
  for (const line of lines) {
    const shown = line.points.filter(([at]) => at >= last - seconds).map(([at, value]) => [at, log && value === 0 ? null : value]);
    svg.append(element("path", { class: `curve ${line.kind}`, d: pathThrough(shown, x, y) }));
  }
}

function linearScale(values, low, high) {
  const top = roundUp(Math.max(...values) || 1);
  return [(value) => low - ((low - high) * value) / top, [0, top / 2, top]];
}

function logScale(values, low, high) {
  const least = Math.floor(Math.log10(Math.min(...values))), most = Math.max(least + 1, Math.ceil(Math.log10(Math.max(...values))));
  const y = (value) => low - ((low - high) * (Math.log10(value) - least)) / (most - least);
  return [y, decades(least, most)];
}

function decades(least, most) {
  return Array.from({ length: most - least + 1 }, (_, index) => 10 ** (least + index));
}

// How much of all there is in each bucket, for each factor of e: then buckets of any width can be compared.
function densities(shape) {
  return shape.buckets.map(([from, below, count]) => [from, below, count / shape.count / Math.log(below / from)]);
}

function drawDistribution(svg, recent, whole) {
  const size = canvas(svg);
  if (!size) return;
  const shapes = [recent, whole].map(densities), all = shapes.flat();
  if (!all.length) {
    svg.append(element("text", { x: size.width / 2, y: size.height / 2, "text-anchor": "middle" }, "nothing counted yet"));
    return;
  }
  const least = Math.floor(Math.log10(Math.min(...all.map(([from]) => from))) + 1e-9);
  const most = Math.max(least + 1, Math.ceil(Math.log10(Math.max(...all.map(([, below]) => below))) - 1e-9));
  const left = 22, right = size.width - 22, low = size.height - 20, high = 30;
  const x = (value) => left + ((right - left) * (Math.log10(value) - least)) / (most - least);
  const top = Math.max(...all.map(([, , density]) => density));
  const y = (density) => low - ((low - high) * density) / top;
  drawDecades(svg, x, decades(least, most), { left, right, low, high, bottom: size.height - 5 });
  svg.append(element("path", { class: "area", d: outline(shapes[0], x, y, low) }));
  svg.append(element("path", { class: "curve blue", d: outline(shapes[0], x, y, low) }));
  svg.append(element("path", { class: "whole-line", d: outline(shapes[1], x, y, low) }));
  drawMarks(svg, recent, x, low, size.width);
}

function drawDecades(svg, x, ticks, box) {
  const step = Math.ceil((48 * (ticks.length - 1)) / (box.right - box.left));
  svg.append(element("line", { class: "grid", x1: box.left, x2: box.right, y1: box.low, y2: box.low }));
  ticks.forEach((value, index) => {
    svg.append(element("line", { class: "grid", x1: x(value), x2: x(value), y1: box.high, y2: box.low }));
    if (index % step) return;
    svg.append(element("text", { x: x(value), y: box.bottom, "text-anchor": "middle" }, tick(asTime, value)));
  });
}

// Steps over the buckets, down to the ground where there is a gap.
function outline(buckets, x, y, ground) {
  let path = "", end = null;
  for (const [from, below, density] of buckets) {
    const adjoins = end !== null && Math.abs(Math.log(from / end)) < 1e-6;
    if (!adjoins) path += `${end === null ? "" : `L${place(x(end), ground)}`}M${place(x(from), ground)}`;
    path += `L${place(x(from), y(density))}L${place(x(below), y(density))}`;
    end = below;
  }
  return end === null ? "" : `${path}L${place(x(end), ground)}`;
}

function place(x, y) {
  return `${x.toFixed(1)} ${y.toFixed(1)}`;
}

// p50 and p99 as lines with their values, each on a line of its own and one on either side: they may be near one another.
function drawMarks(svg, shape, x, low, width) {
  const marks = [["p99", "orange", 11], ["p50", "green", 25]].filter(([name]) => shape[name] !== null);
  for (const [name, kind, row] of marks) {
    const at = x(Math.max(shape[name], 1e-9));
    svg.append(element("line", { class: `mark ${kind}`, x1: at, x2: at, y1: row - 9, y2: low }));
  }
  for (const [name, kind, row] of marks) {
    const at = x(Math.max(shape[name], 1e-9)), flip = name === "p50" ? at > 90 : at > width - 90;
    const label = { class: `label ${kind}`, x: at + (flip ? -5 : 5), y: row, "text-anchor": flip ? "end" : "start" };
    svg.append(element("text", label, `${name} ${words(asTime, shape[name])}`));
  }
}
