/* Drawing in SVG: elements, ticks, axes, paths. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.svg) return;

  const NS = "http://www.w3.org/2000/svg";
  function attributes(node, given) {
    for (const [name, value] of Object.entries(given)) if (value !== undefined && value !== null && value !== "") node.setAttribute(name, value);
    return node;
  }
  function svg(tag, given = {}, ...children) {
    const node = attributes(document.createElementNS(NS, tag), given);
    node.append(...children);
    return node;
  }

  function ticks(low, high, most) {
    const span = high - low || 1, rough = span / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough));
    const by = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= rough * 0.999);
    const out = [];
    for (let x = Math.ceil(low / by - 1e-9) * by; x <= high + by * 1e-6; x += by) out.push(Math.abs(x) < by * 1e-6 ? 0 : x);
    return out;
  }
  const plain = (x) => (Math.abs(x) >= 10000 ? x.toExponential(0) : String(Number(x.toPrecision(3))));

  /* Axes: {root, plot, X, Y, left, right, top, bottom}. x and y are [low, high]; xticks: values, or how many. */
  function chart({ width, height = 190, x, y, xlabel = "", ylabel = "", xticks = 6, yticks = 4, xformat = plain, yformat = plain, label = "", left = 40 }) {
    const top = 8, right = 10, bottom = xlabel ? 34 : 20, w = Math.max(40, width - left - right), t = height - top - bottom;
    const X = (v) => left + (w * (v - x[0])) / (x[1] - x[0] || 1), Y = (v) => top + t - (t * (v - y[0])) / (y[1] - y[0] || 1);
    const root = svg("svg", { width, height, class: "dl-chart", role: "img", "aria-label": label });
    const axes = svg("g", { class: "dl-axes" });
    for (const v of ticks(y[0], y[1], yticks)) {
      axes.append(svg("line", { x1: left, x2: left + w, y1: Y(v), y2: Y(v) }), svg("text", { x: left - 5, y: Y(v) + 3.5, "text-anchor": "end" }, yformat(v)));
    }
    for (const v of Array.isArray(xticks) ? xticks : ticks(x[0], x[1], Math.min(xticks, w / 48))) {
      axes.append(svg("text", { x: X(v), y: top + t + 14, "text-anchor": "middle" }, xformat(v)));
    }
    if (xlabel) axes.append(svg("text", { x: left + w / 2, y: height - 4, "text-anchor": "middle" }, xlabel));
    if (ylabel) axes.append(svg("text", { x: 10, y: top + t / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${top + t / 2})` }, ylabel));
    const plot = svg("g");
    root.append(axes, plot);
    return { root, plot, X, Y, left, right: left + w, top, bottom: top + t };
  }

  const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)},${b.toFixed(1)}`).join("");

  Object.assign(lab, { svg, attributes, chart, ticks, path, plain });
})();
