"use strict";
const specs = JSON.parse(document.getElementById("specs").textContent);
const options = { actions: false, renderer: "svg", tooltip: { disableDefaultStyle: true } };
Promise.all(Object.entries(specs).map(([id, spec]) => vegaEmbed(document.getElementById(id), spec, options)))
  .then(() => document.body.classList.add("drawn"))
  .catch((error) => console.error("A chart could not be drawn:", error));
matchMedia("print").addEventListener("change", () => dispatchEvent(new Event("resize")));
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
const numberIn = (cell) => { const found = cell.textContent.replace("\u2212", "-").match(/-?\d+(\.\d+)?/); return found ? Number(found[0]) : NaN; };
const worth = (line) => Number.isNaN(line.number) ? -1e9 : line.number;
function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0], column = header.cellIndex;
  const falling = header.getAttribute("aria-sort") !== "descending" && header.classList.contains("right");
  const up = !falling && header.getAttribute("aria-sort") !== "ascending";
  table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const lines = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent, number: numberIn(row.cells[column]) }));
  const order = (a, b) => (header.classList.contains("right") ? worth(a) - worth(b) : a.text.localeCompare(b.text));
  lines.sort((a, b) => (up ? order(a, b) : order(b, a))).forEach((line) => body.append(line.row));
}
document.querySelectorAll("table.sortable th").forEach((header) => {
  header.classList.add("sorts");
  header.tabIndex = 0;
  header.addEventListener("click", () => sortBy(header));
  header.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(header); } });
});
