// The page: one stream of events in, figures and drawings out. Each message is whole, so a lost one does no harm.

const TILES = [
  { key: "messages", title: "Messages", format: asRate },
  { key: "replies", title: "Replies", format: asRate },
  { key: "errors", title: "Errors", format: asRate, kind: "red", bad: (value) => value > 0 },
  { key: "lane_time", title: "In the lane, p99", format: asTime },
  { key: "round_trip", title: "Round trip, p99", format: asTime, kind: "orange" },
  { key: "agents", title: "Agents", format: asCount },
  { key: "outstanding", title: "Questions open", format: asCount },
  { key: "queued", title: "Queued", format: asBytes },
  { key: "bytes", title: "Bytes to workers", format: (value) => withRate(asBytes(value)) },
  { key: "cpu", title: "CPU, in all", format: asShare },
  { key: "memory", title: "Memory, in all", format: asBytes },
  { key: "arena", title: "Arenas in use", format: asBytes },
];

const TIMES = [
  { key: "lane_time", title: "Time in the lane", about: "from sent to received, of messages to agents" },
  { key: "handler_time", title: "Handler time", about: "of a message, while handlers ran" },
  { key: "round_trip", title: "Round trip", about: "from question to reply, of this process" },
];

const CURVES = [
  { title: "Messages and replies", format: asRate, lines: [["messages", "messages", "blue"], ["replies", "replies", "green"], ["errors", "errors", "red"]] },
  { title: "p99 of times", format: asTime, log: true, lines: [["lane_time", "in the lane", "blue"], ["handler_time", "handler", "green"], ["round_trip", "round trip", "orange"]] },
];

const COUNTS = [
  { key: "messages", title: "Messages to agents" },
  { key: "replies", title: "Replies" },
  { key: "errors", title: "Errors", bad: true },
  { key: "dead_letters", title: "Dead letters", bad: true },
  { key: "timeouts", title: "Timeouts", bad: true },
  { key: "late_replies", title: "Late replies" },
  { key: "backpressure_waits", title: "Waits for room" },
  { key: "backpressure_seconds", title: "Time in these waits", format: asTime },
  { key: "refusals", title: "Refused for want of room" },
  { key: "restarts", title: "Restarts of workers", bad: true },
  { key: "redelivered", title: "Redelivered messages" },
  { key: "poisoned", title: "Poison messages", bad: true },
  { key: "dropped", title: "Bytes dropped from lanes", bad: true, format: asBytes },
  { key: "logs", title: "Log records dropped", bad: true },
  { key: "alarms", title: "Lost wake-ups", bad: true },
];

const view = { points: [], frame: null, keep: 300, interval: 1, paused: false, seen: 0, due: 0, ended: false };
const byId = (id) => document.getElementById(id);

function withRate([number, unit]) {
  return [number, unit && `${unit}/s`];
}

function make(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function makeSvg(label) {
  return element("svg", { role: "img", "aria-label": label });
}

function build() {
  for (const tile of TILES) {
    const box = make("div", "tile");
    const value = make("div", "value");
    tile.number = make("span", "number", NONE);
    tile.unit = make("span", "unit");
    tile.spark = element("svg", { "aria-hidden": "true" });
    tile.number.dataset.figure = tile.key;
    value.append(tile.number, tile.unit);
    box.append(make("h3", "", tile.title), value, tile.spark);
    tile.box = box;
    byId("tiles").append(box);
  }
  for (const time of TIMES) {
    time.table = make("table", "summary");
    time.svg = makeSvg(`${time.title}: the distribution whose figures follow`);
    addPanel("times", time.title, [make("p", "", time.about), time.svg, time.table]);
  }
  for (const curve of CURVES) {
    const legend = make("p", "legend");
    for (const [, name, kind] of curve.lines) {
      const key = make("span", "key");
      key.style.borderColor = `var(--${kind})`;
      legend.append(key, name, " ");
    }
    curve.svg = makeSvg(`${curve.title}, over time`);
    addPanel("curves", curve.title, [legend, curve.svg]);
  }
  for (const count of COUNTS) {
    const box = make("div");
    count.node = make("dd", "", NONE);
    count.node.dataset.count = count.key;
    box.append(make("dt", "", count.title), count.node);
    byId("counts").append(box);
  }
  fillTable(byId("workers"), WORKER_COLUMNS, [], "no workers yet");
  fillTable(byId("classes"), CLASS_COLUMNS, [], "no messages yet");
}

function addPanel(place, title, content) {
  const panel = make("div", "panel");
  panel.append(make("h3", "", title), ...content);
  byId(place).append(panel);
}

function show() {
  view.due = 0;
  const frame = view.frame;
  if (!frame) return;
  const state = frame.interval === null ? "first sample" : `sampled each ${tick(asTime, view.interval)}`;
  setText(byId("who"), `process ${frame.pid}, ${frame.workers.length} workers, ${state}`);
  if (!view.ended) notice(frame.measuring ? "" : "Metrics are off: set Fabric.metrics = True for rates and latencies.");
  showAlerts(frame.alerts);
  showTiles(frame.point);
  for (const time of TIMES) showTime(time, frame.times[time.key]);
  for (const curve of CURVES) showCurve(curve);
  fillTable(byId("workers"), WORKER_COLUMNS, frame.workers, "no workers");
  fillTable(byId("classes"), CLASS_COLUMNS, frame.classes, "no messages yet");
  for (const { key, node, bad, format } of COUNTS) {
    setText(node, words(format ?? asCount, frame.counts[key]));
    node.classList.toggle("bad", Boolean(bad && frame.counts[key] > 0));
  }
  document.documentElement.dataset.frames = String(view.seen);
}

function showAlerts(alerts) {
  const wanted = alerts.length ? alerts.map((alert) => alert.text) : ["none"];
  const list = byId("alerts");
  if ([...list.children].map((item) => item.textContent).join("\n") === wanted.join("\n")) return;
  list.replaceChildren(...wanted.map((text) => make("li", alerts.length ? "bad" : "none", text)));
}

function showTiles(point) {
  for (const tile of TILES) {
    const [number, unit] = tile.format(point[tile.key]);
    setText(tile.number, number);
    setText(tile.unit, unit);
    tile.box.classList.toggle("bad", Boolean(tile.bad && tile.bad(point[tile.key])));
    drawSpark(tile.spark, series(tile.key), tile.kind ?? "blue");
  }
}

// One figure over time, with a hole where nobody looked and so nothing was sampled.
function series(key) {
  const line = [];
  for (const point of view.points) {
    const last = line.length && line[line.length - 1][0];
    if (last && point.at - last > 3 * view.interval + 1) line.push([last, null]);
    line.push([point.at, point[key]]);
  }
  return line;
}

function showTime(time, { recent, whole }) {
  drawDistribution(time.svg, recent, whole);
  fillTable(time.table, TIME_COLUMNS, [{ name: "interval", ...recent }, { name: "in all", ...whole }], "");
}

function showCurve(curve) {
  const lines = curve.lines.map(([key, name, kind]) => ({ name, kind, points: series(key) }));
  const known = view.points.length > 1 ? view.points[view.points.length - 1].at - view.points[0].at : 0;
  drawCurves(curve.svg, lines, curve.format, Math.max(known, 30 * view.interval), curve.log);
}

function notice(text) {
  byId("notice").hidden = !text;
  setText(byId("notice"), text);
}

function status(state, text) {
  byId("status").dataset.state = state;
  setText(byId("status"), text);
}

function take(frame) {
  view.frame = frame;
  view.seen += 1;
  if (!view.paused && !view.due) view.due = requestAnimationFrame(show); // not at all while the tab is hidden
}

function listen() {
  const events = new EventSource(`api/events${location.search}`);
  events.addEventListener("history", (event) => {
    const had = JSON.parse(event.data);
    Object.assign(view, { points: had.points, interval: had.interval, keep: had.keep });
    status("live", "live");
    if (had.frame) take(had.frame);
  });
  events.addEventListener("sample", (event) => {
    const frame = JSON.parse(event.data);
    if (frame.interval !== null) view.points = [...view.points, frame.point].slice(-view.keep);
    take(frame);
  });
  events.addEventListener("end", (event) => {
    events.close();
    view.ended = true;
    const closed = JSON.parse(event.data).reason === "closed";
    status("ended", "ended");
    notice(`${closed ? "The dashboard was closed." : "The fabric has ended."} These are the last figures.`);
  });
  events.addEventListener("error", () => {
    if (view.ended) return;
    if (events.readyState === EventSource.CLOSED) {
      status("lost", "refused");
      notice("The program answers no more to this address: open the one that it gives now.");
    } else status("lost", "connection lost, trying again");
  });
}

byId("pause").addEventListener("click", (event) => {
  view.paused = !view.paused;
  event.currentTarget.setAttribute("aria-pressed", String(view.paused));
  if (!view.paused) show();
});
window.addEventListener("resize", show);
build();
listen();
