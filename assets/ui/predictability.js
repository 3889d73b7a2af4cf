/* Predictable means parallel: acceptance, sweeps and error against the largest Lyapunov exponent a step. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountPredictability) return;
  const { h, set, visible, ValuePanels, plainLabel } = lab;

  const known = (x) => x !== null && x !== undefined && Number.isFinite(x);
  const short = (x, digits = 3) => (known(x) ? String(Number(x.toPrecision(digits))) : "–");
  const PANELS = {
    acceptance: { title: "Drafted patches kept", views: { acceptance: "share", calls: "calls" } },
    sweeps: { title: "Sweeps to the same path", views: { "0.0": "exactly", 0.001: "within 0.001" } },
    error: { title: "Error", views: { ends: "near and far", steps: "by step" } },
  };
  const KINDS = { chaos: ["chaotic system", 1], ar1: ["autoregression", 2], now: ["measured now", 3] };

  class Predictability extends ValuePanels {
    constructor(element, props) {
      super(element, PANELS, props.plotly, "Predictability");
      this.bar = h("div", { class: "dl-progress dl-gal-progress", hidden: true }, h("i", {}));
      this.tag = h("div", { class: "dl-origin" });
      this.line = h("p", { class: "dl-verdict", role: "status", "aria-live": "polite" });
      this.notice = h("div", { class: "dl-notice" }, this.tag, this.bar, this.line);
      this.legend = h("div", { class: "dl-chaos-keys", "aria-hidden": "true" }, ...Object.entries(KINDS).map(([kind, [text]]) => h("span", { "data-kind": kind }, h("i", {}), text)));
      this.table = h("table", {});
      this.details = h("details", { class: "dl-numbers", ontoggle: () => this.drawTable() }, h("summary", {}, "These plots as a table"), lab.scroller("Predictability of every series", this.table));
      this.root.append(this.notice, this.legend, this.grid, this.details);
    }

    told() {
      const { value } = this, e = value.environment;
      const some = value.rows.length > 0 || !!value.now;
      for (const part of [this.legend, this.grid, this.details]) part.hidden = !some;
      this.legend.querySelector("[data-kind=now]").hidden = !value.now;
      this.bar.hidden = value.state !== "running";
      this.bar.firstChild.style.width = `${(100 * value.done) / Math.max(1, value.total)}%`;
      const tag = value.state === "recorded" ? h("span", { class: "dl-tag" }, "recorded, not live") : h("span", { class: "dl-tag is-live" }, "live");
      const when = e ? `${e.horizon} steps, ${e.paths} paths, ${e.series} series each; ${e.cpu}, ${e.threads} ${e.threads === 1 ? "thread" : "threads"}, ${e.date}` : "";
      this.tag.replaceChildren(tag, h("span", { class: "dl-when" }, visible(when)));
      set(this.line, value.message);
      this.line.dataset.state = value.state;
      this.drawTable();
    }

    all() {
      const rows = this.value.rows.map((row) => ({ ...row, shown: row.kind }));
      return this.value.now ? [...rows, { ...this.value.now, shown: "now" }] : rows;
    }

    /* One trace a kind: y of every row that knows it, at its exponent. */
    points(y, more = () => ({}), format = "%{y:.3~g}") {
      return Object.entries(KINDS).map(([kind, [name, i]]) => {
        const rows = this.all().filter((row) => row.shown === kind && known(y(row)));
        return { name, mode: "markers", x: rows.map((r) => r.exponent), y: rows.map(y), marker: { ...this.marker(i, kind === "now" ? 12 : 9), line: { width: kind === "now" ? 2 : 1, color: this.style.card } },
          text: rows.map((r) => plainLabel(r.title)), hovertemplate: `%{text}: ${format} at %{x:.3~g}<extra></extra>`, ...more(rows, i) };
      });
    }

    xaxis() { return { text: "largest Lyapunov exponent a step", zeroline: true }; }

    acceptance(view) {
      if (view === "calls") return { data: this.points((r) => r.calls), layout: { xaxis: this.xaxis(), yaxis: { text: "target calls a forecast", rangemode: "tozero" }, shapes: this.most() } };
      const bars = (rows, i) => ({ error_y: { type: "data", symmetric: false, thickness: 1, width: 2, color: this.color(i), array: rows.map((r) => r.interval[1] - r.acceptance), arrayminus: rows.map((r) => r.acceptance - r.interval[0]) } });
      return { data: this.points((r) => r.acceptance, bars, "%{y:.1%}"), layout: { xaxis: this.xaxis(), yaxis: { text: "kept of those judged", tickformat: ".0%", range: [0, 1.04] } } };
    }

    sweeps(view) {
      return { data: this.points((r) => r.sweeps?.[view]), layout: { xaxis: this.xaxis(), yaxis: { text: "sweeps a path", rangemode: "tozero" }, shapes: this.most() } };
    }

    /* Where nothing is gained: a call a patch. */
    most() {
      const patches = Math.max(0, ...this.all().map((r) => r.patches || 0));
      return patches ? [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: patches, y1: patches, line: { color: this.style.quiet, width: 1, dash: "dot" } }] : [];
    }

    error(view) {
      const block = this.value.environment?.block || 16;
      if (view === "steps") {
        const data = this.all().filter((r) => r.wql.length).map((r) => {
          const i = KINDS[r.shown][1];
          return { name: r.title, mode: "lines", x: r.wql.map((_, k) => block * k + block / 2), y: r.wql, line: { color: this.color(i), width: r.shown === "now" ? 3 : 1.3, dash: r.shown === "ar1" ? "dot" : "solid" },
            opacity: r.shown === "now" ? 1 : 0.7, hovertemplate: `%{y:.3~g} near step %{x}<extra>${plainLabel(r.title)}</extra>` };
        });
        return { data, layout: { xaxis: { text: "step of the horizon", rangemode: "tozero" }, yaxis: { text: "WQL", rangemode: "tozero" } } };
      }
      const near = this.points((r) => r.wql[0], () => ({}), `%{y:.3~g} over the first ${block} steps`);
      const far = this.points((r) => r.wql.at(-1), (rows, i) => ({ marker: { symbol: "circle-open", size: 7, color: this.color(i), line: { width: 1.5, color: this.color(i) } } }), `%{y:.3~g} over the last ${block} steps`);
      return { data: [...near, ...far], layout: { xaxis: this.xaxis(), yaxis: { text: `WQL: first ${block} steps (filled), last`, rangemode: "tozero" } } };
    }

    drawTable() {
      if (!this.details.open || !this.value) return;
      const head = ["series", "exponent a step", "kept", "calls", "sweeps, exactly", "sweeps within 0.001", "patches", "WQL first", "WQL last"];
      const rows = this.all().map((r) => [r.title, short(r.exponent), known(r.acceptance) ? `${(100 * r.acceptance).toFixed(1)} %` : "–", short(r.calls), short(r.sweeps?.["0.0"]), short(r.sweeps?.["0.001"]), short(r.patches), short(r.wql[0]), short(r.wql.at(-1))]);
      this.table.replaceChildren(h("caption", { class: "dl-sr" }, "Predictability of every series"), h("thead", {}, h("tr", {}, ...head.map((c) => h("th", { scope: "col" }, c)))),
        h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((c, i) => h(i ? "td" : "th", i ? {} : { scope: "row" }, visible(c)))))));
    }
  }

  lab.mountPredictability = (element, props, watch) => {
    const view = new Predictability(element, props);
    const take = () => view.take(props.value);
    watch("value", take);
    take();
  };
})();
