"use strict";
// Tables are whole without this; it lets a reader order and filter them. Of the worst cases, and of groups
// too many for a table each, the page holds data, which this shows by the metric that a reader chooses.
function valueOf(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace("<", "").replaceAll(",", ""));
  return { text, number };
}
function compare(a, b, sign) {
  const blank = Number.isNaN(a.number) - Number.isNaN(b.number);
  if (Number.isNaN(a.number) && Number.isNaN(b.number)) return sign * a.text.localeCompare(b.text, "en", { numeric: true });
  return blank || sign * (a.number - b.number);
}
function sortBy(table, head, column) {
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  // Within its sections: a section's title stays above its rows.
  for (const body of table.tBodies) {
    const rows = Array.from(body.querySelectorAll("tr:not(.part)"), (row) => ({ row, value: valueOf(row, column) }));
    rows.sort((a, b) => compare(a.value, b.value, sign));
    body.append(...rows.map((entry) => entry.row));
  }
}
function sortable(table) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head, column));
    head.replaceChildren(button);
  });
}
function element(name, text, more = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return Object.assign(made, more);
}
function chooser(label, options) {
  const select = element("select");
  options.forEach((text, value) => select.append(element("option", text, { value })));
  const shown = element("label", label + " ");
  shown.append(select);
  return [shown, select];
}
function filter(label) {
  const input = element("input", undefined, { type: "search", placeholder: "filter" });
  input.setAttribute("aria-label", label);
  return input;
}
const FEWEST_FILTERED = 20;
const ROOMY = 8;
function matches(text, input) {
  const wanted = input.value.trim().toLowerCase();
  return wanted.split(/\s+/).every((word) => text.toLowerCase().includes(word));
}
function filterable(box, table) {
  const input = filter("Filter " + (table.caption ? table.caption.textContent : "rows"));
  input.addEventListener("input", () => {
    for (const body of table.tBodies) {
      const title = body.querySelector("tr.part");
      for (const row of body.querySelectorAll("tr:not(.part)")) {
        row.hidden = !matches((title ? title.textContent + " " : "") + row.textContent, input);
      }
      if (title) title.hidden = !body.querySelector("tr:not(.part):not([hidden])");
    }
  });
  box.before(input);
}
function number(value, digits) {
  return value === null ? "–" : value.toFixed(digits);
}
function show(box, columns, rows) {
  const table = element("table", undefined, { className: columns.length > ROOMY ? "sortable dense" : "sortable" });
  const head = table.createTHead().insertRow();
  for (const [text, kind] of columns) head.append(element("th", text, { scope: "col", className: kind }));
  const body = table.createTBody();
  for (const cells of rows) {
    const row = body.insertRow();
    cells.forEach((text, at) => {
      const cell = at === 0 ? element("th", text, { scope: "row" }) : element("td", text);
      cell.className = columns[at][1];
      if (columns[at][2]) cell.classList.add("chosen");
      row.append(cell);
    });
  }
  sortable(table);
  box.replaceChildren(table);
}
// The worst utterances: by the mean over all nodes, or by one node. Rows that lack a value sort last.
function worst(data, metric, by, input) {
  const key = ([, ...values]) => {
    if (by > 0) return values[by - 1] === null ? Infinity : metric.sign * values[by - 1];
    return values.includes(null) ? Infinity : metric.sign * values.reduce((sum, value) => sum + value, 0);
  };
  // Many corpora name no speakers.
  const facts = data.utterances.some((one) => one[1]) ? ["recording", "speaker"] : ["recording"];
  const columns = [...facts.map((name) => [name, "label"]), ...data.nodes.map((node, at) => [node, "", at === by - 1])];
  const rows = metric.rows
    .map((row) => ({ at: key(row), named: data.utterances[row[0]], row }))
    .filter((entry) => entry.at < Infinity && matches(entry.named.join(" "), input))
    .sort((a, b) => a.at - b.at)
    .slice(0, data.count)
    .map(({ named, row }) => [...named.slice(0, facts.length), ...row.slice(1).map((value) => number(value, metric.digits))]);
  return [columns, rows];
}
function groups(data, metric, input) {
  const columns = [...data.by.map((name) => [name, "label"]), ["n", ""], ...data.nodes.map((node) => [node, ""])];
  const rows = [];
  data.groups.forEach((names, at) => {
    if (!matches(names.join(" "), input)) return;
    const cells = metric.mean[at].map((mean, node) => {
      const half = metric.half[at][node];
      return half === null ? number(mean, metric.digits) : number(mean, metric.digits) + " ± " + number(half, metric.digits);
    });
    rows.push([...names, String(Math.max(...metric.n[at])), ...cells]);
  });
  return [columns, rows];
}
function explorer(box) {
  const data = JSON.parse(document.getElementById(box.dataset.from).textContent);
  const [metricLabel, metricChoice] = chooser("Metric", data.metrics.map((metric) => metric.label));
  const input = filter("Filter by name");
  const controls = element("div", undefined, { className: "controls" });
  controls.append(metricLabel);
  let made = () => groups(data, data.metrics[metricChoice.value], input);
  if (data.utterances) {
    const [byLabel, byChoice] = chooser("for", ["the mean over all", ...data.nodes]);
    byLabel.hidden = data.nodes.length < 2;
    if (data.nodes.length < 2) byChoice.value = 1;
    controls.append(byLabel);
    byChoice.addEventListener("change", () => draw());
    made = () => worst(data, data.metrics[metricChoice.value], Number(byChoice.value), input);
  }
  controls.append(input);
  const place = element("div", undefined, { className: "scroll tall", tabIndex: 0 });
  const draw = () => show(place, ...made());
  metricChoice.addEventListener("change", draw);
  input.addEventListener("input", draw);
  box.append(controls, place);
  draw();
}
for (const table of document.querySelectorAll("table.sortable")) sortable(table);
for (const box of document.querySelectorAll(".scroll.tall")) {
  const table = box.querySelector("table");
  if (table && table.querySelectorAll("tbody tr:not(.part)").length > FEWEST_FILTERED) filterable(box, table);
}
for (const box of document.querySelectorAll(".explorer")) explorer(box);
