/* The rolling backtest: a line a lane over all origins, error by origin and by step of the horizon. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountBacktest) return;
  const { h, set, visible, ValuePanels, plainLabel } = lab;

  const known = (x) => x !== null && x !== undefined && Number.isFinite(x);
  const short = (x) => (known(x) ? (Math.abs(x) >= 1000 ? x.toFixed(0) : x.toPrecision(3)) : "–");
  const share = (x) => (known(x) ? `${Math.round(100 * x)} %` : "–");
  const MEASURES = [
    ["wql", "WQL", "weighted quantile loss of all origins together", short],
    ["mase", "MASE", "error of the median, in seasonal errors of the past", short],
    ["sql", "SQL", "scaled quantile loss", short],
    ["coverage80", "in 80 %", "share of truths between the quantiles 0.1 and 0.9", share],
    ["crps_of_sum", "CRPS of sum", "of the sum over the horizon, in units of the series; only paths know it", short],
    ["calls", "calls", "target calls a forecast", short],
    ["seconds", "ms", "of a forecast", (x) => short(known(x) ? 1000 * x : x)],
    ["speedup_time", "× time", "against lane 1, mean over origins", short],
  ];
  const PANELS = {
    origins: { title: "By origin", views: { wql: "WQL", mase: "MASE", coverage80: "in 80 %" } },
    steps: { title: "By step of the horizon", views: { sql: "SQL", mase: "MASE", width: "width", coverage80: "in 80 %" } },
  };
  const NAMES = { wql: "WQL", mase: "MASE", sql: "SQL", coverage80: "truths in the 80 % band", width: "width of the 80 % band, in seasonal errors" };

  class Backtest extends ValuePanels {
    constructor(element, props) {
      super(element, PANELS, props.plotly, "Rolling backtest");
      this.bar = h("div", { class: "dl-progress dl-gal-progress", hidden: true }, h("i", {}));
      this.line = h("p", { class: "dl-verdict", role: "status", "aria-live": "polite" });
      this.tag = h("div", { class: "dl-origin" });
      this.notice = h("div", { class: "dl-notice" }, this.tag, this.bar, this.line);
      this.table = h("table", {});
      this.frame = h("div", { class: "dl-numbers dl-back-table" }, lab.scroller("Scores of all origins together", this.table));
      this.every = h("table", {});
      this.details = h("details", { class: "dl-numbers", ontoggle: () => this.drawEvery() }, h("summary", {}, "Every origin as a table"), lab.scroller("Scores by origin", this.every));
      this.grid.classList.add("is-two");
      this.root.append(this.notice, this.frame, this.grid, this.details);
      for (const part of [this.notice, this.frame, this.grid, this.details]) part.hidden = true;
    }

    told() {
      const { value } = this, found = value.result, some = found.lanes.some((l) => l.pooled.origins);
      this.notice.hidden = false;
      for (const part of [this.frame, this.grid, this.details]) part.hidden = !some;
      const running = value.state === "running";
      this.bar.hidden = !running;
      this.bar.firstChild.style.width = `${(100 * value.done) / Math.max(1, value.total)}%`;
      this.tag.replaceChildren(h("span", { class: "dl-tag is-live" }, "live"), h("span", { class: "dl-when" }, visible(`${found.series}: ${found.horizon} steps from each of ${found.origins.length} origins${found.season > 1 ? `, season ${found.season}` : ""}`)));
      set(this.line, value.message);
      this.line.dataset.state = value.state;
      if (some) { this.drawTable(); this.drawEvery(); }
    }

    lanes() { return this.value.result.lanes.map((lane, i) => ({ lane, i, name: `${i + 1} ${lane.title}` })); }

    drawTable() {
      const head = h("tr", {}, h("th", { scope: "col" }, "lane"), ...MEASURES.map(([, label, title]) => h("th", { scope: "col", title }, label)), h("th", { scope: "col" }, "guarantee"));
      const best = Object.fromEntries(["wql", "mase", "sql", "crps_of_sum"].map((name) => [name, Math.min(...this.lanes().map(({ lane }) => lane.pooled[name]).filter(known))]));
      const rows = this.lanes().map(({ lane, i, name }) => h("tr", {}, h("th", { scope: "row" }, h("i", { class: "dl-back-key", "data-lane": String(i + 1), "aria-hidden": "true" }), visible(name)),
        ...MEASURES.map(([key, , , format]) => h("td", { "data-best": known(lane.pooled[key]) && lane.pooled[key] === best[key] }, format(lane.pooled[key]))),
        h("td", {}, h("span", { class: "dl-chip", "data-kind": lane.guarantee }, lane.guarantee))));
      this.table.replaceChildren(h("caption", { class: "dl-sr" }, "All origins together"), h("thead", {}, head), h("tbody", {}, ...rows));
    }

    drawEvery() {
      if (!this.details.open || !this.value) return;
      const { origins } = this.value.result;
      const head = h("tr", {}, h("th", { scope: "col" }, "origin"), ...this.lanes().map(({ name }) => h("th", { scope: "col" }, visible(name))));
      const cell = (lane, i) => {
        const row = lane.rows[i];
        return lane.problems[i] ? visible(lane.problems[i]) : row && known(row.wql) ? `WQL ${short(row.wql)} · MASE ${short(row.mase)} · ${row.calls} calls` : "–";
      };
      this.every.replaceChildren(h("caption", { class: "dl-sr" }, "Scores by origin"), h("thead", {}, head),
        h("tbody", {}, ...origins.map((o, i) => h("tr", {}, h("th", { scope: "row" }, visible(o.ds)), ...this.lanes().map(({ lane }) => h("td", {}, cell(lane, i)))))));
    }

    origins(view) {
      const x = this.value.result.origins.map((o) => plainLabel(o.ds));
      const data = this.lanes().map(({ lane, i, name }) => ({ name, mode: "lines+markers", x, y: lane.rows.map((row) => row?.[view] ?? null), line: this.stroke(i), marker: this.marker(i), connectgaps: false,
        hovertemplate: `%{y:.3~g} at %{x}<extra>${plainLabel(name)}</extra>` }));
      return { data, layout: { xaxis: { text: "origin", type: "category", tickangle: -30, nticks: 8 }, yaxis: { text: NAMES[view], ...(view === "coverage80" ? { tickformat: ".0%", range: [0, 1.04] } : { rangemode: "tozero" }) }, ...this.target(view) } };
    }

    steps(view) {
      const data = this.lanes().map(({ lane, i, name }) => {
        const y = lane.by_step[view] || [];
        return { name, mode: "lines", x: y.map((_, k) => k + 1), y, line: this.stroke(i), hovertemplate: `%{y:.3~g} at step %{x}<extra>${plainLabel(name)}</extra>` };
      });
      return { data, layout: { xaxis: { text: "step of the horizon", rangemode: "tozero" }, yaxis: { text: NAMES[view], ...(view === "coverage80" ? { tickformat: ".0%", range: [0, 1.04] } : { rangemode: "tozero" }) }, ...this.target(view) } };
    }

    /* The line that coverage should lie on. */
    target(view) {
      if (view !== "coverage80") return {};
      return { shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0.8, y1: 0.8, line: { color: this.style.quiet, width: 1, dash: "dot" } }] };
    }
  }

  lab.mountBacktest = (element, props, watch) => {
    const view = new Backtest(element, props);
    const take = () => view.take(props.value);
    watch("value", take);
    take();
  };
})();
