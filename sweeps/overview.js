// The table and the learning curves of results.html. Names, values and reasons may be a stranger's:
// they are set as text, never as HTML.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SETTINGS = 0, SEED = 1, STATUS = 2, VAL = 3, TEST = 4, SECONDS = 5, BEST_EPOCH = 6, NAME = 7, REPORT = 8; // of a run
const MOST_DRAWN = 60; // curves; more could not be told apart
const MOST_READ = 8; // values at the pointer
const SVG = "http://www.w3.org/2000/svg";
const order = new Intl.Collator("en", { numeric: true });

function make(name, attributes = {}, ...children) {
  const node = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== "").map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

// What the reader has chosen survives the reload of a page that is written again.
const state = { view: "settings", filter: "", sort: null, down: false, metric: data.metrics[0], picked: null };
const place = `results:${location.pathname}`;
try {
  Object.assign(state, JSON.parse(sessionStorage.getItem(place) ?? "{}"));
} catch { /* the browser keeps nothing for files: the page starts anew */ }
const numberOf = new Map(data.runs.map((run, number) => [run[NAME], number]));
const picked = new Set(
  state.picked ? state.picked.map((name) => numberOf.get(name)).filter((number) => number !== undefined) : firstPicks(),
);

function save() {
  state.picked = [...picked].map((number) => data.runs[number][NAME]);
  try {
    sessionStorage.setItem(place, JSON.stringify(state));
  } catch { /* as above */ }
}

function firstPicks() {
  const best = data.settings.filter((row) => row[4]).flatMap((row) => row[5]);
  const running = data.runs.flatMap((run, number) => (run[STATUS] === "running" ? [number] : []));
  const chosen = [...best, ...running].filter((number) => data.curves[number]);
  return (chosen.length ? chosen : data.runs.map((_, number) => number)).slice(0, 12);
}

// A table: columns with a name and, for a row, its text, the value that sorts it, perhaps a node.

const percent = (value) => (value === null ? "" : (100 * value).toFixed(2));
const keyColumns = data.keys.map((key, i) => ({ name: key, text: (row) => row[SETTINGS][i] }));
const reportOf = (number) => {
  const address = data.runs[number][REPORT];
  return address ? make("a", { href: address }, "report") : "";
};
const hasReports = data.runs.some((run) => run[REPORT]);
const mean = (name, i) => ({ name, text: (row) => row[2][i], value: (row) => row[3][i], number: true });
const figure = (name, i, show) => ({ name, text: (row) => show(row[i]), value: (row) => row[i], number: true });
const view = {
  settings: {
    rows: data.settings.map((row) => ({ row, runs: row[5], best: row[4] })),
    columns: [
      ...keyColumns,
      { name: "runs", text: (row) => row[1], value: (row) => row[1], number: true },
      mean("val accuracy %", 0), mean("test accuracy %", 1), mean("seconds", 2),
      { name: "best", text: (row) => (row[4] ? "★" : ""), value: (row) => -row[4], class: "star" },
      { name: "report", text: () => "", nodes: (entry) => entry.runs.map(reportOf), hidden: !hasReports },
    ],
  },
  runs: {
    rows: data.runs.map((row, number) => ({ row, runs: [number], best: 0 })),
    columns: [
      ...keyColumns,
      figure("seed", SEED, (value) => value ?? ""),
      { name: "status", text: (row) => row[STATUS] },
      figure("val accuracy %", VAL, (value) => percent(value ?? null)),
      figure("test accuracy %", TEST, (value) => percent(value ?? null)),
      figure("seconds", SECONDS, (value) => value?.toFixed(1) ?? ""),
      figure("best epoch", BEST_EPOCH, (value) => value ?? ""),
      { name: "run", text: (row) => row[NAME] },
      { name: "report", text: () => "", nodes: (entry) => entry.runs.map(reportOf), hidden: !hasReports },
    ],
  },
};

function compare(column) {
  const value = column.value ?? column.text;
  return (a, b) => {
    const [x, y] = [value(a.row), value(b.row)];
    const [hasX, hasY] = [x ?? "", y ?? ""].map((found) => found !== "");
    if (!hasX || !hasY) return hasY - hasX; // what is missing comes last, either way
    const sign = state.down ? -1 : 1;
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : Number(x) - Number(y) || order.compare(x, y));
  };
}

function matches(columns) {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = (entry) => columns.map((column) => String(column.text(entry.row)).toLowerCase());
  return (entry) => {
    const cells = texts(entry);
    return words.every((word) => {
      const [key, value] = word.split(/=(.*)/s);
      const i = columns.findIndex((column) => column.name.toLowerCase() === key);
      return value !== undefined && i >= 0 ? cells[i] === value : cells.some((cell) => cell.includes(word));
    });
  };
}

function showTable() {
  const { rows, columns: all } = view[state.view];
  const columns = all.filter((column) => !column.hidden);
  const sorted = columns.find((column) => column.name === state.sort);
  const shown = rows.filter(matches(columns));
  if (sorted) shown.sort(compare(sorted));
  const heads = columns.map((column) => {
    const is = column === sorted;
    const button = make("button", { type: "button", onclick: () => sortBy(column) }, `${column.name}${is ? (state.down ? " ▼" : " ▲") : ""}`);
    return make("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": is ? (state.down ? "descending" : "ascending") : null }, button);
  });
  const body = shown.map((entry) => {
    const cells = columns.map((column) => {
      const text = column.text(entry.row);
      const kind = column.number ? "number" : (column.class ?? (column.name === "status" ? text : null));
      const nodes = column.nodes?.(entry).filter(Boolean).flatMap((node) => [node, " "]) ?? [text];
      return make("td", { class: kind }, ...nodes);
    });
    const box = make("input", { type: "checkbox", "aria-label": `curves of ${labelOf(entry)}`, onchange: (event) => pick(entry, event) });
    box.checked = entry.runs.length > 0 && entry.runs.every((number) => picked.has(number));
    box.disabled = entry.runs.every((number) => !data.curves[number]);
    return make("tr", { class: entry.best ? "best" : null }, make("td", {}, box), ...cells);
  });
  const top = make("tr", {}, make("th", { scope: "col" }, make("span", { "aria-hidden": "true" }, " curves ")), ...heads);
  byId("table").replaceChildren(make("thead", {}, top), make("tbody", {}, ...body));
  byId("count").textContent = `${shown.length} of ${rows.length} ${state.view}`;
}

function labelOf(entry) {
  return (state.view === "runs" ? entry.row[NAME] : entry.row[SETTINGS].join(", ")) || "all runs";
}

function sortBy(column) {
  const first = column.number ? true : false; // of numbers, the largest
  state.down = state.sort === column.name ? !state.down : first;
  state.sort = column.name;
  save();
  showTable();
  byId("table").querySelector("[aria-sort] button").focus();
}

function pick(entry, event) {
  for (const number of entry.runs) event.target.checked ? picked.add(number) : picked.delete(number);
  save();
  showCurves();
}

for (const id of ["view", "metric"]) {
  byId(id).value = state[id];
  byId(id).addEventListener("change", () => {
    state[id] = byId(id).value;
    save();
    id === "view" ? showTable() : showCurves();
  });
}
byId("filter").value = state.filter;
byId("filter").addEventListener("input", () => {
  state.filter = byId("filter").value;
  save();
  showTable();
});
byId("clear").addEventListener("click", () => {
  picked.clear();
  save();
  showTable();
  showCurves();
});
