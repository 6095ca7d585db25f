// Tables whose rows stay where they are and whose cells change. All text goes in as text: names come from programs.

const WORKER_COLUMNS = [
  { title: "Worker", key: "slot", format: asCount, head: true },
  { title: "State", key: "state", word: true },
  { title: "PID", key: "pid", format: (pid) => [String(pid), ""] },
  { title: "Agents", key: "agents", format: asCount },
  { title: "Messages", key: "rate", format: asRate },
  { title: "Errors", key: "errors", format: asCount, bad: (row) => row.errors > 0 },
  { title: "Queue", key: "queued", format: asBytes, meter: (row) => row.fill },
  { title: "Waiting", key: "waiting", format: asCount },
  { title: "Handler p50", key: "p50", format: asTime },
  { title: "Handler p99", key: "p99", format: asTime },
  { title: "Lane p99", key: "lane_p99", format: asTime },
  { title: "Busy", key: "busy", format: asShare, meter: (row) => row.busy },
  { title: "CPU", key: "cpu", format: asShare },
  { title: "Memory", key: "memory", format: asBytes },
  { title: "Restarts", key: "restarts", format: asCount, bad: (row) => row.restarts > 0 },
];

const CLASS_COLUMNS = [
  { title: "Class", key: "name", word: true, head: true },
  { title: "Messages", key: "rate", format: asRate },
  { title: "Handler p50", key: "p50", format: asTime },
  { title: "Handler p99", key: "p99", format: asTime },
  { title: "Messages in all", key: "messages", format: asCount },
  { title: "Errors in all", key: "errors", format: asCount, bad: (row) => row.errors > 0 },
  { title: "Handler time in all", key: "seconds", format: asTime },
];

const TIME_COLUMNS = [
  { title: "", key: "name", word: true, head: true },
  { title: "Messages", key: "count", format: asMany },
  { title: "p50", key: "p50", format: asTime },
  { title: "p99", key: "p99", format: asTime },
  { title: "max", key: "max", format: asTime },
];

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function makeHead(table, columns) {
  const row = document.createElement("tr");
  for (const column of columns) {
    const cell = document.createElement(column.title ? "th" : "td");
    if (column.title) cell.scope = "col";
    cell.textContent = column.title;
    if (column.word) cell.className = "word";
    row.append(cell);
  }
  table.createTHead().append(row);
  table.createTBody();
}

function makeRow(columns) {
  const row = document.createElement("tr");
  for (const column of columns) {
    const cell = document.createElement(column.head ? "th" : "td");
    if (column.head) cell.scope = "row";
    cell.dataset.column = column.key;
    cell.className = [column.word && "word", column.key === "state" && "state", column.meter && "meter"].filter(Boolean).join(" ");
    row.append(cell);
  }
  return row;
}

function fillTable(table, columns, rows, none) {
  if (!table.tHead) makeHead(table, columns);
  const body = table.tBodies[0];
  if (!rows.length) {
    const cell = document.createElement("td");
    cell.className = "none";
    cell.colSpan = columns.length;
    cell.textContent = none;
    const row = document.createElement("tr");
    row.append(cell);
    body.replaceChildren(row);
    return;
  }
  if (body.querySelector(".none")) body.replaceChildren();
  while (body.rows.length > rows.length) body.deleteRow(-1);
  while (body.rows.length < rows.length) body.append(makeRow(columns));
  rows.forEach((values, index) => fillRow(body.rows[index], columns, values));
}

function fillRow(row, columns, values) {
  if (values.state) row.dataset.state = values.state;
  columns.forEach((column, index) => {
    const cell = row.cells[index], value = values[column.key];
    setText(cell, column.format ? words(column.format, value) : value);
    if (column.word) cell.title = value; // it may be cut
    if (column.bad) cell.classList.toggle("bad", column.bad(values));
    if (column.meter) cell.style.backgroundSize = `${100 * (column.meter(values) ?? 0)}% 100%`;
  });
}
