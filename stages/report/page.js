"use strict";
// Tables are whole without this; it only lets a reader order them by a column.
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
for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, head, column));
    head.replaceChildren(button);
  });
}
