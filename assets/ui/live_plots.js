/* LivePlots: progress, acceptance and cost of the race at the moment shown, drawn by plotly.js of the installed plotly. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountPlots) return;
  const { h, number, times, percent, plainLabel, MARKERS } = lab;

  const POINTS = 500;
  const ROLL = 12; /* steps in a rolling rate */
  const PANELS = {
    progress: { title: "Progress", views: { seconds: "time", calls: "calls", modelled: "modelled" } },
    acceptance: { title: "Acceptance", views: { histogram: "steps", position: "position", rolling: "rolling" } },
    cost: { title: "Cost", views: { time: "time", calls: "calls" } },
  };

  /* Every n-th point and the last one. */
  function thin(list) {
    if (list.length <= POINTS) return list;
    const every = Math.ceil(list.length / POINTS);
    return list.filter((_, i) => i % every === 0 || i === list.length - 1);
  }

  class Plots extends lab.Panels {
    constructor(element, id, url) {
      super(element, PANELS, url, "Plots");
      this.race = lab.race(id);
      this.table = h("table", {});
      this.details = h("details", { class: "dl-numbers", ontoggle: () => this.later() },
        h("summary", {}, "These plots as a table"), lab.scroller("Plots of the race as a table", this.table));
      this.root.append(this.details);
      if (id === "forecast") this.choose("acceptance", "position");
      this.race.watch(() => this.later());
    }

    get run() { return this.race.value ? this.race.value.run_id : null; }

    draw() {
      if (this.run !== null && this.details.open) this.drawTable();
      super.draw();
    }

    get unit() { return this.race.value?.unit || "token"; }
    lanes() { return this.race.lanes.map((lane, i) => ({ lane, i, k: this.race.at(lane), name: lane.meta.name })); }

    progress(view) {
      const x = { seconds: (s) => s.clock, calls: (s) => s.calls, modelled: (s) => s.calls + this.race.ratio * s.draftCalls }[view];
      const data = this.lanes().map(({ lane, i, k, name }) => {
        const steps = thin(lane.steps.slice(0, k)), last = steps.length - 1;
        return { name, mode: "lines+markers", x: [0, ...steps.map(x)], y: [0, ...steps.map((s) => s.units)], line: this.stroke(i),
          marker: { symbol: MARKERS[i % 4], color: this.color(i), size: [...steps.map(() => 0), last >= 0 ? 9 : 0] },
          hovertemplate: `%{y} ${this.unit}s at %{x:.4~g}<extra>${plainLabel(name)}</extra>` };
      });
      const label = { seconds: "lane compute time, seconds", calls: "target calls", modelled: "cost, in target calls" }[view];
      return { data, layout: { xaxis: { text: label, rangemode: "tozero" }, yaxis: { text: { cell: "cells painted", value: "values forecast" }[this.unit] || "tokens", rangemode: "tozero" } } };
    }

    acceptance(view) {
      const lanes = this.lanes().filter(({ lane }) => lane.steps.some((s) => s.judged));
      if (!lanes.length) return this.empty("no lane has drafted yet");
      const deepest = Math.max(0, ...lanes.flatMap(({ lane }) => lane.steps.map((s) => s.depth))), dtick = deepest > 10 ? Math.ceil(deepest / 8) : 1;
      const [make, xaxis, yaxis] = {
        histogram: [perStep, { text: "guesses kept in a step", dtick }, { text: "share of steps", tickformat: ".0%", rangemode: "tozero" }],
        position: [perPosition, { text: "draft position", dtick }, { text: "kept", tickformat: ".0%", range: [0, 1.04] }],
        rolling: [rolling, { text: "lane compute time, seconds", rangemode: "tozero" }, { text: `kept, last ${ROLL} steps`, tickformat: ".0%", range: [0, 1.04] }],
      }[view];
      const data = lanes.map(({ lane, i, k, name }) => {
        const { x, y } = make(lane.steps.slice(0, k)), extra = `<extra>${plainLabel(name)}</extra>`;
        if (view === "histogram") return { type: "bar", name, x, y, marker: { color: this.color(i), pattern: { shape: ["", "", "/", "."][i % 4], fillmode: "overlay", fgopacity: 0.5, solidity: 0.3, size: 6 } }, hovertemplate: `%{x} kept: %{y:.0%} of steps${extra}` };
        return { name, mode: view === "rolling" ? "lines" : "lines+markers", x, y, line: this.stroke(i),
          marker: { symbol: MARKERS[i % 4], size: 7, color: this.color(i) }, hovertemplate: `%{y:.0%} at %{x:.4~g}${extra}` };
      });
      return { data, layout: { xaxis, yaxis, barmode: "group" } };
    }

    cost(view) {
      const lanes = this.lanes().map((l) => ({ ...l, m: this.race.measures(l.lane, l.k) })).filter((l) => l.m).reverse();
      const parts = view === "time"
        ? [["target", (m) => (1000 * m.seconds) / m.units], ["draft", (m) => (1000 * m.draftSeconds) / m.units], ["other", (m) => (1000 * m.other) / m.units]]
        : [["target", (m) => m.calls / m.units], ["draft", (m) => m.draftCalls / m.units]];
      const unit = view === "time" ? " ms" : " calls";
      const data = parts.map(([part, value], p) => ({ type: "bar", orientation: "h", width: 0.62, name: part, y: lanes.map((l) => l.i + 1),
        x: lanes.map((l) => value(l.m)), marker: { color: lanes.map((l) => this.color(l.i)), opacity: [1, 0.55, 0.25][p], line: { width: 0 } },
        text: lanes.map((l) => (p === 0 || value(l.m) > 0 ? part : "")), textposition: "inside", insidetextanchor: "middle", constraintext: "inside", textfont: { size: 10, ...(p ? { color: this.style.text } : {}) },
        hovertemplate: lanes.map((l) => `${part}: %{x:.3~g}${unit} per ${this.unit}<extra>${plainLabel(l.name)}</extra>`) }));
      return { data, layout: { barmode: "stack", xaxis: { text: view === "time" ? `milliseconds per ${this.unit}` : `calls per ${this.unit}`, rangemode: "tozero" },
        yaxis: { tickvals: lanes.map((l) => l.i + 1), ticktext: lanes.map((l) => `lane ${l.i + 1}`), range: [0.4, this.race.lanes.length + 0.6] } } };
    }

    drawTable() {
      const head = ["lane", `${this.unit}s`, "target calls", "draft calls", "compute s", `${this.unit}s / s`, `${this.unit}s / call`, "kept", "× calls", "× modelled", "× time", "target ms", "draft ms", "other ms"];
      const rows = this.lanes().map(({ lane, name, k }) => {
        const m = this.race.measures(lane, k), s = this.race.speedups(lane);
        if (!m) return [name];
        return [name, m.units, m.calls, m.draftCalls, number(m.clock, 2), number(m.rate), number(m.length, 2), m.judged ? percent(m.kept / m.judged) : "–",
          ...["calls", "modelled", "time"].map((key) => (s ? times(s[key]) : "1")), ...[m.seconds, m.draftSeconds, m.other].map((x) => number(1000 * x, 0))];
      });
      this.table.replaceChildren(h("thead", {}, h("tr", {}, ...head.map((c) => h("th", { scope: "col" }, c)))),
        h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((c, i) => h(i ? "td" : "th", i ? {} : { scope: "row" }, String(c)))))));
    }
  }

  function perStep(steps) {
    const drafted = steps.filter((s) => s.judged), counts = [];
    for (const s of drafted) counts[s.kept] = (counts[s.kept] || 0) + 1;
    const x = Array.from({ length: counts.length }, (_, i) => i);
    return { x, y: x.map((i) => (counts[i] || 0) / drafted.length) };
  }

  function perPosition(steps) {
    const drafted = [], kept = [];
    for (const s of steps) {
      if (s.frame?.k) { s.frame.k.forEach(([yes, all], d) => { drafted[d] = (drafted[d] || 0) + all; kept[d] = (kept[d] || 0) + yes; }); continue; }
      for (let d = 0; d < s.depth; d++) drafted[d] = (drafted[d] || 0) + 1;
      for (let d = 0; d < s.kept; d++) kept[d] = (kept[d] || 0) + 1;
    }
    return { x: drafted.map((_, d) => d + 1), y: drafted.map((n, d) => (kept[d] || 0) / n) };
  }

  function rolling(steps) {
    const out = [];
    for (let i = 0; i < steps.length; i++) {
      let kept = 0, judged = 0;
      for (let j = Math.max(0, i - ROLL + 1); j <= i; j++) { kept += steps[j].kept; judged += steps[j].judged; }
      if (judged) out.push([steps[i].clock, kept / judged]);
    }
    const thinned = thin(out);
    return { x: thinned.map((o) => o[0]), y: thinned.map((o) => o[1]) };
  }

  lab.mountPlots = (element, props) => new Plots(element, props.race || "text", props.plotly);
})();
