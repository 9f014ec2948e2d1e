// The learning curves of the runs that are ticked, over one another, with their values at an epoch.

const chart = byId("chart");
let drawn = []; // {points: [[epoch, value]], name, style, path} of each curve
let epochShown = null, valueShown = 0; // where the pointer is, or was when the curves changed
const HINT = "Move the pointer over the curves, or focus them and use the arrow keys, to read their values.";

function epochsOf(count) {
  const shown = Math.min(count, data.points); // as sweeps/epochs.py has thinned them
  return Array.from({ length: shown }, (_, i) => 1 + Math.floor((i * (count - 1)) / Math.max(1, shown - 1)));
}

function curvesToDraw() {
  const styles = new Map(); // runs of one setting look alike
  const metric = data.metrics.indexOf(state.metric);
  return [...picked].filter((number) => data.curves[number]).slice(0, MOST_DRAWN).map((number) => {
    const run = data.runs[number];
    const setting = run[SETTINGS].join(", ") || "all runs";
    if (!styles.has(setting)) styles.set(setting, `s${styles.size % 6} d${Math.floor(styles.size / 6) % 4}`);
    const [count, curves] = data.curves[number];
    const points = epochsOf(count).map((epoch, i) => [epoch, curves[metric][i]]).filter(([, value]) => value !== null);
    const name = run[SEED] === null ? setting : `${setting}, seed ${run[SEED]}`;
    return { number, setting, name, points, style: styles.get(setting) };
  }).filter((curve) => curve.points.length);
}

function ticks(low, high, count, whole) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((found) => found >= rough);
  if (whole) step = Math.max(1, Math.round(step));
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

const isShare = () => state.metric.endsWith("accuracy");
const written = (value) => (isShare() ? `${(100 * value).toFixed(2)} %` : String(Number(value.toPrecision(4))));

function showCurves() {
  drawn = curvesToDraw();
  const wanted = [...picked].filter((number) => data.curves[number]).length;
  byId("drawn").textContent = wanted > MOST_DRAWN
    ? `the first ${MOST_DRAWN} of ${wanted} curves that are ticked`
    : `${drawn.length} curve${drawn.length === 1 ? "" : "s"}`;
  showLegend();
  byId("readout").replaceChildren(make("p", { class: "faint" }, HINT));
  if (!drawn.length) {
    chart.replaceChildren(make("p", { class: "faint" }, "Tick rows of the table to see their curves."));
    return;
  }
  const all = drawn.flatMap((curve) => curve.points);
  const width = Math.max(260, chart.clientWidth), height = width < 500 ? 260 : 340;
  const bounds = (i) => all.reduce(([low, high], point) => [Math.min(low, point[i]), Math.max(high, point[i])], [Infinity, -Infinity]);
  const [, last] = bounds(0);
  let [low, high] = bounds(1);
  if (low === high) [low, high] = [low - 0.01, isShare() && high === 1 ? high : high + 0.01];
  const x = (epoch) => 58 + ((width - 72) * (epoch - 1)) / Math.max(1, last - 1);
  const y = (value) => height - 34 - ((height - 48) * (value - low)) / (high - low);
  const svg = make("svg:svg", { width, height, role: "img", "aria-label": `${state.metric} of ${drawn.length} runs` });
  for (const value of ticks(low, high, height / 60, false)) {
    svg.append(make("svg:line", { class: "rule", x1: 58, x2: width - 14, y1: y(value), y2: y(value) }));
    const text = isShare() ? `${Number((100 * value).toPrecision(6))} %` : Number(value.toPrecision(6));
    svg.append(make("svg:text", { x: 52, y: y(value) + 4, "text-anchor": "end" }, text));
  }
  for (const epoch of ticks(1, last, width / 90, true)) {
    if (epoch >= 1) svg.append(make("svg:text", { x: x(epoch), y: height - 16, "text-anchor": "middle" }, epoch));
  }
  svg.append(make("svg:text", { x: (width + 44) / 2, y: height - 4, "text-anchor": "middle" }, "epoch"));
  for (const curve of drawn) {
    const line = curve.points.map(([epoch, value], i) => `${i ? "L" : "M"}${x(epoch).toFixed(1)} ${y(value).toFixed(1)}`);
    curve.path = make("svg:path", { d: line.join(""), class: curve.style });
    svg.append(curve.path);
    if (curve.points.length === 1) {
      const [[epoch, value]] = curve.points;
      svg.append(make("svg:circle", { cx: x(epoch), cy: y(value), r: 3.5, class: curve.style }));
    }
  }
  const cross = make("svg:line", { class: "cross", y1: 10, y2: height - 34, visibility: "hidden" });
  svg.append(cross);
  chart.replaceChildren(svg);
  const read = (epoch, value) => readAt(epoch, value, last, cross, x);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const epoch = 1 + ((event.clientX - box.left - 58) * Math.max(1, last - 1)) / (width - 72);
    read(Math.round(epoch), low + ((height - 34 - (event.clientY - box.top)) * (high - low)) / (height - 48));
  });
  chart.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -last, End: last }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    read((epochShown ?? (step > 0 ? 0 : last + 1)) + step, valueShown || high);
  };
  if (epochShown !== null) read(epochShown, valueShown);
}

function readAt(epoch, near, last, cross, x) {
  epochShown = Math.min(last, Math.max(1, epoch));
  valueShown = near;
  const found = drawn.map((curve) => {
    const at = curve.points.reduce((best, point) => (Math.abs(point[0] - epochShown) < Math.abs(best[0] - epochShown) ? point : best));
    return { curve, epoch: at[0], value: at[1], distance: Math.abs(at[1] - near) };
  }).filter((entry) => entry.epoch === epochShown || entry.curve.points.length === data.points);
  found.sort((a, b) => a.distance - b.distance);
  for (const { path } of drawn) path.classList.toggle("near", path === found[0]?.curve.path);
  for (const edge of ["x1", "x2"]) cross.setAttribute(edge, x(epochShown));
  cross.setAttribute("visibility", "visible");
  const shown = found.slice(0, MOST_READ);
  const nearest = shown[0];
  shown.sort((a, b) => b.value - a.value);
  const lines = shown.map((entry) => make("div", { class: entry === nearest ? "near" : null },
    swatch(entry.curve.style), make("span", { class: "value" }, written(entry.value)), make("span", {}, entry.curve.name,
      entry.epoch === epochShown ? "" : ` (epoch ${entry.epoch})`)));
  const more = found.length > shown.length ? `, the ${shown.length} nearest of ${found.length}` : "";
  byId("readout").replaceChildren(make("div", {}, `epoch ${epochShown}: ${state.metric}${more}`), ...lines);
}

function swatch(style) {
  const line = make("svg:line", { x1: 0, x2: 22, y1: 6, y2: 6, class: style, "stroke-width": 2.5 });
  return make("span", { class: "swatch" }, make("svg:svg", { width: 22, height: 12, "aria-hidden": "true" }, line));
}

function showLegend() {
  const settings = new Map();
  for (const curve of drawn) settings.set(curve.setting, [...(settings.get(curve.setting) ?? []), curve]);
  byId("legend").replaceChildren(...[...settings].map(([setting, curves]) => {
    const remove = () => {
      for (const { number } of curves) picked.delete(number);
      save();
      showTable();
      showCurves();
    };
    const label = curves.length > 1 ? `${setting} (${curves.length} runs)` : setting;
    return make("li", {}, swatch(curves[0].style), label,
      make("button", { type: "button", onclick: remove, "aria-label": `remove ${setting}` }, "×"));
  }));
}

showTable();
showCurves();
new ResizeObserver(() => {
  const svg = chart.querySelector("svg");
  if (svg && Math.abs(svg.clientWidth - Math.max(260, chart.clientWidth)) > 2) showCurves();
}).observe(chart);

// While something runs, the page is read again; not while the reader is doing something with it.
if (data.reload) {
  let used = 0;
  for (const kind of ["pointermove", "keydown", "wheel", "touchstart"]) {
    addEventListener(kind, () => (used = Date.now()), { passive: true });
  }
  setInterval(() => Date.now() - used > 4000 && location.reload(), 1000 * data.reload);
}
