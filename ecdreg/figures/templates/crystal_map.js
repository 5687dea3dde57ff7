// D: the data of the map, see ecdreg/figures/crystal_map.py.
const NS = "http://www.w3.org/2000/svg", W = 1000, H = 680, L = 50, R = 190, T = 20, B = 45;
const svg = document.getElementById("map"), tip = document.getElementById("tip"), frame = document.getElementById("frame");
const make = (name, attributes, parent) => { const e = document.createElementNS(NS, name);
  for (const k in attributes) e.setAttribute(k, attributes[k]); (parent || svg).appendChild(e); return e; };
const write = (x, y, text, more) => { const e = make("text", Object.assign({x, y}, more)); e.textContent = text; return e; };
const xs = D.points.map(p => p[0]), ys = D.points.map(p => p[1]);
const span = v => { const a = Math.min(...v), b = Math.max(...v), m = (b - a || 1) * .04; return [a - m, b + m]; };
const [x0, x1] = span(xs), [y0, y1] = span(ys);
const px = x => L + (x - x0) / (x1 - x0) * (W - L - R), py = y => H - B - (y - y0) / (y1 - y0) * (H - T - B);
const clip = make("clipPath", {id: "inside"}); make("rect", {x: L, y: T, width: W - L - R, height: H - T - B}, clip);
make("rect", {x: L, y: T, width: W - L - R, height: H - T - B, fill: "#fbfcfd", stroke: "#d0d7de"});
const room = make("g", {"clip-path": "url(#inside)"}), all = make("g", {}, room);
write(L + (W - L - R) / 2, H - 12, D.axes[0], {"text-anchor": "middle"});
write(0, 0, D.axes[1], {"text-anchor": "middle", transform: `translate(24 ${T + (H - T - B) / 2}) rotate(-90)`});
const dots = D.points.map((p, i) => make("circle", {cx: px(p[0]), cy: py(p[1]), r: 5, stroke: "#fff",
  "stroke-width": .6, tabindex: -1, "data-i": i}, all));
let legend = make("g", {});
const round = v => v === null || v === undefined ? "unknown" : String(+v.toPrecision(4));
function numbers(name) {
  const v = D.values[name], sorted = v.filter(x => x !== null).sort((a, b) => a - b);
  const at = q => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(q * (sorted.length - 1))))];
  const lo = at(.02), hi = at(.98) > at(.02) ? at(.98) : at(.02) + 1, n = D.shades.length;
  dots.forEach((d, i) => { const x = v[i];
    d.setAttribute("fill", x === null ? D.unknown : D.shades[Math.round(Math.min(1, Math.max(0, (x - lo) / (hi - lo))) * (n - 1))]); });
  const x = W - R + 24, h = 300;
  D.shades.forEach((c, i) => make("rect", {x, y: T + 30 + h - (i + 1) * h / n, width: 18, height: h / n + .6, fill: c}, legend));
  const label = (y, text) => { const e = make("text", {x: x + 26, y}, legend); e.textContent = text; };
  const head = make("text", {x, y: T + 16}, legend); head.textContent = `${D.labels[name]} [${D.units[name]}]`;
  for (let i = 0; i <= 4; i++) label(T + 35 + h * (1 - i / 4),
    (i === 0 && sorted[0] < lo ? "\u2264 " : i === 4 && sorted[sorted.length - 1] > hi ? "\u2265 " : "") + round(lo + (hi - lo) * i / 4));
  if (sorted.length < v.length) { make("circle", {cx: x + 9, cy: T + 30 + h + 25, r: 5, fill: D.unknown}, legend);
    label(T + 30 + h + 30, `unknown (${v.length - sorted.length})`); }
}
function categories(name) {
  const g = D.groups[name], count = {}; g.forEach(x => count[x] = (count[x] || 0) + 1);
  const order = Object.keys(count).filter(x => x !== "other").sort((a, b) => count[b] - count[a]);
  const colour = x => x === "other" ? D.unknown : D.series[order.indexOf(x)] || D.unknown;
  dots.forEach((d, i) => d.setAttribute("fill", colour(g[i])));
  const x = W - R + 24; const head = make("text", {x, y: T + 16}, legend); head.textContent = D.labels[name];
  [...order, ...(count.other ? ["other"] : [])].forEach((o, i) => {
    make("circle", {cx: x + 6, cy: T + 38 + i * 24, r: 6, fill: colour(o)}, legend);
    const e = make("text", {x: x + 20, y: T + 43 + i * 24}, legend); e.textContent = `${o} (${count[o]})`; });
}
const choice = document.getElementById("colour"), find = document.getElementById("find"), counted = document.getElementById("count");
for (const name of [...Object.keys(D.values), ...Object.keys(D.groups)]) { const o = document.createElement("option");
  o.value = name; o.textContent = D.labels[name]; o.selected = name === D.colour; choice.appendChild(o); }
function paint() { legend.remove(); legend = make("g", {}); (choice.value in D.values ? numbers : categories)(choice.value); }
choice.addEventListener("change", paint); paint();
find.addEventListener("input", () => {
  const q = find.value.trim(), low = q.toLowerCase(), element = /^=([A-Z][a-z]?)$/.exec(q);
  let n = 0;
  dots.forEach((d, i) => {
    const f = D.formulas[i];
    const met = !q || (element ? (f.match(/[A-Z][a-z]?/g) || []).includes(element[1])
      : [f, D.ids[i], ...Object.values(D.facts).map(x => x[i] || "")].some(x => x.toLowerCase().includes(low)));
    d.classList.toggle("dim", !met); n += met; });
  counted.textContent = q ? `${n} of ${dots.length}` : "";
});
function show(i, event) {
  const rows = Object.keys(D.facts).map(k => [D.labels[k], D.facts[k][i] || "unknown", ""])
    .concat(Object.keys(D.values).map(k => [D.labels[k], round(D.values[k][i]), D.values[k][i] === null ? "" : D.units[k]]));
  tip.replaceChildren();
  const b = document.createElement("b"); b.textContent = D.formulas[i]; tip.append(b, ` ${D.ids[i]}`);
  const table = document.createElement("table"); tip.appendChild(table);
  for (const row of rows) { const tr = table.insertRow(); for (const cell of row) tr.insertCell().textContent = cell; }
  tip.style.display = "block";
  const box = frame.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
  tip.style.left = Math.min(x + 14, box.width - tip.offsetWidth - 6) + "px";
  tip.style.top = Math.max(4, Math.min(y + 14, box.height - tip.offsetHeight - 6)) + "px";
}
all.addEventListener("pointermove", e => { const i = e.target.dataset && e.target.dataset.i; if (i !== undefined) show(+i, e); });
all.addEventListener("pointerout", () => { tip.style.display = "none"; });
let k = 1, ox = 0, oy = 0, from = null;
const move = () => { all.setAttribute("transform", `translate(${ox} ${oy}) scale(${k})`); dots.forEach(d => d.setAttribute("r", 5 / Math.sqrt(k))); };
const place = e => { const m = svg.getScreenCTM(); return [(e.clientX - m.e) / m.a, (e.clientY - m.f) / m.d]; };
svg.addEventListener("wheel", e => { e.preventDefault(); const [x, y] = place(e), f = Math.exp(-e.deltaY / 400);
  const n = Math.min(40, Math.max(1, k * f)); ox = x - (x - ox) * n / k; oy = y - (y - oy) * n / k; k = n; if (k === 1) ox = oy = 0; move(); }, {passive: false});
svg.addEventListener("pointerdown", e => { from = [...place(e), ox, oy]; });
svg.addEventListener("pointermove", e => { if (!from || k === 1) return; const [x, y] = place(e); ox = from[2] + x - from[0]; oy = from[3] + y - from[1]; move(); });
addEventListener("pointerup", () => { from = null; });
svg.addEventListener("dblclick", () => { k = 1; ox = oy = 0; move(); });
const selected = /^#(\d+)$/.exec(location.hash);  // the address ...#12 opens the description of point 12
if (selected && dots[+selected[1]]) { const r = dots[+selected[1]].getBoundingClientRect(); show(+selected[1], {clientX: r.x, clientY: r.y}); }
