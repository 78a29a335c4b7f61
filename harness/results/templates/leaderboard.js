"use strict";
(() => {
  const rows = [...document.querySelectorAll("tbody.board tr")];
  const find = document.getElementById("find");
  const dataset = document.getElementById("dataset");
  const ranked = document.getElementById("ranked");
  const best = document.getElementById("best");
  const controls = document.getElementById("controls");
  const count = document.getElementById("count");

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const here = row.closest("section.dataset").dataset.dataset;
      const control = row.classList.contains("control");
      row.hidden = !words.every((word) => row.dataset.words.includes(word))
        || (dataset.value !== "" && here !== dataset.value)
        || (ranked.checked && row.classList.contains("unranked"))
        || (best.checked && !row.classList.contains("in-best-group"))
        || (!controls.checked && control);
      shown += !row.hidden;
    }
    for (const part of document.querySelectorAll("section.protocol, section.dataset")) {
      const inside = [...part.querySelectorAll("tbody.board tr")];
      part.hidden = inside.length > 0 && inside.every((row) => row.hidden);
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };

  const compare = (a, b, sign) => {
    // What does not exist stays below, whichever way a column is sorted.
    if (a === "" || b === "") return (a === "") - (b === "");
    const [x, y] = [Number(a), Number(b)];
    return sign * (Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b) : x - y);
  };

  const sort = (header) => {
    const first = header.dataset.first || "descending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = header.getAttribute("aria-sort") === first ? second : first;
    const table = header.closest("table");
    const column = [...header.parentElement.children].indexOf(header);
    for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    const body = table.tBodies[0];
    const value = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
    const sign = order === "ascending" ? 1 : -1;
    body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b), sign)));
    table.querySelector("caption .order").textContent = `, sorted by ${header.textContent.trim()}, ${order}`;
  };

  for (const input of [find, dataset, ranked, best, controls]) input.addEventListener("input", filter);
  for (const button of document.querySelectorAll("thead button")) button.addEventListener("click", () => sort(button.closest("th")));

  const theme = document.getElementById("theme");
  const root = document.documentElement;
  // Pages opened from files may be refused a storage; the choice then lasts as long as the page.
  try { theme.value = localStorage.getItem("theme") ?? ""; } catch { /* no storage */ }
  const paint = () => {
    if (theme.value) root.dataset.theme = theme.value; else delete root.dataset.theme;
    try { localStorage.setItem("theme", theme.value); } catch { /* no storage */ }
  };
  theme.addEventListener("input", paint);
  paint();
  filter();
})();
