/* The series that is about to be forecast: its curve with context and origin, facts, where it is from, what is wrong. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountSeries) return;
  const { h, svg, path } = lab;

  const TALL = 54;

  function curve({ curve, length, first, last, horizon }, wide) {
    const known = curve.filter(([, y]) => y !== null), low = Math.min(...known.map(([, y]) => y)), high = Math.max(...known.map(([, y]) => y));
    const X = (i) => (wide * i) / Math.max(1, length - 1), Y = (y) => TALL - 4 - ((TALL - 8) * (y - low)) / (high - low || 1);
    const root = svg("svg", { viewBox: `0 0 ${wide} ${TALL}`, width: "100%", height: TALL, preserveAspectRatio: "none", role: "img", "aria-label": "The whole series; shaded what is looked back on and what is held back" });
    if (first !== null && first !== undefined) {
      root.append(svg("rect", { x: X(first), width: Math.max(1, X(last) - X(first)), y: 0, height: TALL, class: "dl-looked" }));
      root.append(svg("rect", { x: X(last), width: Math.max(1, X(Math.min(length - 1, last + horizon)) - X(last)), y: 0, height: TALL, class: "dl-held" }));
    }
    let part = [];
    const flush = () => { if (part.length) root.append(svg("path", { d: path(part), class: "dl-spark" })); part = []; };
    for (const [i, y] of curve) { if (y === null) flush(); else part.push([X(i), Y(y)]); }
    flush();
    return root;
  }

  function draw(root, told) {
    const parts = [];
    if (told?.curve?.length) parts.push(curve(told, 300), h("p", {}, ...told.facts.flatMap((fact, i) => [i ? " · " : "", h("span", {}, fact)])));
    if (told?.error) parts.push(h("p", { class: "is-wrong" }, told.error));
    if (told?.problems?.length) {
      const many = told.problems.length;
      parts.push(h("details", { open: many < 4 }, h("summary", {}, `${many} ${many === 1 ? "thing" : "things"} in the file could not be used`),
        h("ul", {}, ...told.problems.map((text) => h("li", {}, text)))));
    }
    if (told?.provenance) parts.push(h("p", { class: "dl-provenance" }, told.provenance));
    root.replaceChildren(...parts);
  }

  lab.mountSeries = (element, props, watch) => {
    const root = h("div", { class: "dl-series" });
    element.replaceChildren(root);
    draw(root, props.value);
    watch("value", () => draw(root, props.value));
  };
})();
