/* Events: one point process continued in two ways; when, how often, and whether the law is the same. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountEvents) return;
  const { h, set, visible, ValuePanels, plainLabel } = lab;

  const known = (x) => x !== null && x !== undefined && Number.isFinite(x);
  const short = (x, digits = 3) => (known(x) ? String(Number(x.toPrecision(digits))) : "–");
  const PANELS = {
    raster: { title: "Events", views: { calls: "by call", paths: "by path" } },
    rate: { title: "Events a unit of time", views: { band: "with band", count: "means" } },
    residuals: { title: "Time-rescaled residuals", views: { target: "target's law", true: "true intensity" } },
    acceptance: { title: "Drafted events kept", views: { place: "by place" } },
  };
  const FATES = { kept: ["kept", "--dl-kept", "circle"], rejected: ["rejected", "--dl-rejected", "x-thin-open"], fixed: ["drawn instead", "--dl-fixed", "diamond"], bonus: ["drawn freely", "--dl-bonus", "circle-open"] };

  class Events extends ValuePanels {
    constructor(element, props) {
      super(element, PANELS, props.plotly, "Events");
      this.bar = h("div", { class: "dl-origin" });
      this.line = h("p", { class: "dl-verdict", role: "status", "aria-live": "polite" });
      this.problems = h("ul", { class: "dl-event-problems" });
      this.notice = h("div", { class: "dl-notice" }, this.bar, this.line, this.problems);
      this.table = h("table", {});
      this.frame = h("div", { class: "dl-numbers dl-back-table" }, lab.scroller("Cost of both ways", this.table));
      this.legend = h("div", { class: "dl-event-keys", "aria-hidden": "true" }, ...Object.entries(FATES).map(([fate, [text]]) => h("span", { "data-fate": fate }, h("i", {}), text)));
      this.grid.classList.add("is-two");
      this.root.append(this.notice, this.frame, this.legend, this.grid);
      for (const part of this.root.children) part.hidden = true;
      if (new URLSearchParams(location.search).get("view") === "events") this.reveal(element);
    }

    /* A link to this part scrolls to it, once its tab is open. */
    reveal(element) {
      const part = element.closest(".dl-more") || element, began = performance.now();
      const wait = () => (part.offsetParent ? part.scrollIntoView({ block: "start" }) : performance.now() - began < 20000 && setTimeout(wait, 200));
      setTimeout(wait, 400);
    }

    told() {
      const { value } = this, { told } = value, some = value.lanes.some((lane) => lane.summary);
      this.notice.hidden = false;
      for (const part of [this.frame, this.legend, this.grid]) part.hidden = !some;
      const span = `${told.known} events known, continued from ${short(told.now, 5)} to ${short(told.until, 5)}`;
      this.bar.replaceChildren(h("span", { class: value.recorded ? "dl-tag" : "dl-tag is-live" }, value.recorded ? "recorded, not live" : "live"), h("span", { class: "dl-when" }, visible(`${value.recorded ? `${value.recorded}. ` : ""}${told.title}: ${span}`)));
      set(this.line, value.message);
      this.line.dataset.state = value.state;
      this.problems.replaceChildren(...value.problems.map((text) => h("li", {}, visible(text))));
      if (some) this.drawTable();
    }

    lanes() { return this.value.lanes.map((lane, i) => ({ lane, i, name: `${i + 1} ${lane.title}` })).filter(({ lane }) => lane.summary); }

    drawTable() {
      const head = ["lane", "target calls", "draft calls", "events", "events a call", "judged and kept", "ms", "× calls", "× time", "KS / 95 % bound", "guarantee"];
      const base = this.lanes()[0]?.lane.summary;
      const rows = this.lanes().map(({ lane, i, name }) => {
        const s = lane.summary, ks = lane.residuals.target;
        const ratio = (key) => (s.events && base.events && s[key] ? `${short((base[key] / base.events) / (s[key] / s.events))}×` : "–");
        return h("tr", {}, h("th", { scope: "row" }, h("i", { class: "dl-back-key", "data-lane": String(i + 1), "aria-hidden": "true" }), visible(name)),
          ...[s.calls, s.draft_calls, s.events, short(s.per_call), known(s.alpha) ? `${(100 * s.alpha).toFixed(1)} %` : "–", short(1000 * s.seconds), ratio("calls"), ratio("seconds"), ks?.count ? `${short(ks.distance)} / ${short(ks.band)}` : "–"].map((x) => h("td", {}, String(x))),
          h("td", {}, h("span", { class: "dl-chip", "data-kind": lane.guarantee }, lane.guarantee)));
      });
      this.table.replaceChildren(h("caption", { class: "dl-sr" }, "What both ways cost"), h("thead", {}, h("tr", {}, ...head.map((c) => h("th", { scope: "col" }, c)))), h("tbody", {}, ...rows));
    }

    css(name) { return getComputedStyle(this.root).getPropertyValue(name).trim() || this.style.text; }

    kinds(rows) { return rows.map((r) => plainLabel(this.value.told.kinds[r[3]] ?? "")); }

    now() { return { type: "line", yref: "paper", y0: 0, y1: 1, x0: this.value.told.now, x1: this.value.told.now, line: { color: this.style.quiet, width: 1, dash: "dot" } }; }

    raster(view) { return view === "calls" ? this.byCall() : this.byPath(); }

    /* One path of each lane: what every call did to it. */
    byCall() {
      const { told } = this.value, data = [];
      for (const { lane, i, name } of this.lanes()) {
        const own = lane.raster.filter((r) => r[0] === 0), stays = own.filter((r) => r[4] !== "rejected");
        data.push({ name, mode: "lines", x: stays.map((r) => r[2]), y: stays.map((r) => r[1]), line: { ...this.stroke(i), width: 1 }, hoverinfo: "skip" });
        for (const [fate, [text, color, symbol]] of Object.entries(FATES)) {
          const rows = own.filter((r) => r[4] === fate);
          data.push({ name: text, mode: "markers", x: rows.map((r) => r[2]), y: rows.map((r) => r[1]), text: this.kinds(rows), marker: { symbol, size: fate === "rejected" ? 9 : 7, color: this.css(color), line: { width: 1.5, color: this.css(color) } },
            hovertemplate: `%{text}, ${text}, at %{x:.5~g} in call %{y}<extra>${plainLabel(name)}</extra>` });
        }
      }
      const most = Math.max(1, ...this.lanes().map(({ lane }) => lane.summary.calls));
      return { data, layout: { xaxis: { text: "time; path 1 of each lane", range: [told.now, told.until] }, yaxis: { text: "target call", range: [0, most * 1.05] } } };
    }

    /* The first paths of each lane, the truth and the end of the history above one another. */
    byPath() {
      const { told } = this.value, data = [], label = [], place = [];
      const row = (name, y, x, text, color, symbol) => {
        label.push(name); place.push(y);
        data.push({ name, mode: "markers", x, y: x.map(() => y), text, marker: { symbol, size: 11, color, line: { width: 1.5, color } }, hovertemplate: `%{text} at %{x:.5~g}<extra>${plainLabel(name)}</extra>` });
      };
      const tick = (k) => ["line-ns-open", "triangle-up", "square", "diamond"][Math.max(0, k) % 4];
      const symbols = (marks) => marks.map((m) => tick(told.kinds.indexOf(m)));
      const past = told.history.filter(([t]) => t > told.now - 0.5 * (told.until - told.now));
      const truth = [...past, ...told.truth];
      let y = 0;
      row(told.truth.length ? "truth" : "known", y, truth.map((e) => e[0]), truth.map((e) => plainLabel(e[1])), this.style.text, symbols(truth.map((e) => e[1])));
      for (const { lane, i } of this.lanes()) {
        for (let p = 0; p < 4; p += 1) {
          const own = lane.raster.filter((r) => r[0] === p && r[4] !== "rejected");
          if (own.length) row(`${i + 1} path ${p + 1}`, (y -= 1), own.map((r) => r[2]), this.kinds(own), this.color(i), own.map((r) => tick(r[3])));
        }
      }
      return { data, layout: { xaxis: { text: "time" }, yaxis: { tickmode: "array", tickvals: place, ticktext: label, range: [y - 0.7, 0.7], showgrid: false }, shapes: [this.now()] } };
    }

    rate(view) {
      const { told } = this.value, data = [];
      for (const { lane, i, name } of this.lanes()) {
        const r = lane.rate;
        if (!r) continue;
        const x = r.at.map((t) => t + told.now);
        if (view === "band") {
          data.push({ x: [...x, ...[...x].reverse()], y: [...r.high, ...[...r.low].reverse()], fill: "toself", fillcolor: this.color(i), opacity: 0.16, mode: "none", hoverinfo: "skip" });
        }
        data.push({ name, mode: "lines", x, y: r.mean, line: this.stroke(i), hovertemplate: `%{y:.3~g} a unit near %{x:.4~g}<extra>${plainLabel(name)}</extra>` });
      }
      const bins = this.lanes()[0]?.lane.rate?.at.length || 20, wide = (told.until - told.now) / bins;
      const count = (events, from, n) => Array.from({ length: n }, (_, b) => events.filter(([t]) => t > from + b * wide && t <= from + (b + 1) * wide).length / wide);
      const first = Math.max(0, Math.floor((told.now - told.history[0][0]) / wide)), back = Math.min(first, bins >> 1);
      const from = told.now - back * wide;
      data.push({ name: "known", mode: "lines", line: { color: this.style.quiet, width: 1.3, shape: "hvh" }, x: Array.from({ length: back }, (_, b) => from + (b + 0.5) * wide), y: count(told.history, from, back), hovertemplate: "%{y:.3~g} a unit, known<extra></extra>" });
      if (told.whole_truth) data.push({ name: "truth", mode: "lines", line: { color: this.style.text, width: 1.3, shape: "hvh" }, x: Array.from({ length: bins }, (_, b) => told.now + (b + 0.5) * wide), y: count(told.truth, told.now, bins), hovertemplate: "%{y:.3~g} a unit, truth<extra></extra>" });
      return { data, layout: { xaxis: { text: "time" }, yaxis: { text: view === "band" ? "mean and 80 % of paths" : "mean over paths", rangemode: "tozero" }, shapes: [this.now()] } };
    }

    /* A right law lies on the diagonal, within the bounds 95 times of 100. */
    residuals(view) {
      const found = this.lanes().filter(({ lane }) => lane.residuals[view]?.count);
      if (!found.length) return this.empty(view === "true" && this.value.state === "done" ? "nobody knows the true intensity of these events" : "judged when both are done");
      const band = Math.max(...found.map(({ lane }) => lane.residuals[view].band)), edge = { mode: "lines", line: { color: this.style.quiet, width: 1, dash: "dot" }, hoverinfo: "skip" };
      const data = [{ ...edge, x: [0, 1], y: [0, 1], line: { color: this.style.quiet, width: 1 } }, { ...edge, x: [0, 1 - band], y: [band, 1] }, { ...edge, x: [band, 1], y: [0, 1 - band] }];
      for (const { lane, i, name } of found) {
        const r = lane.residuals[view];
        data.push({ name, mode: "lines", x: r.x, y: r.y, line: this.stroke(i), hovertemplate: `%{y:.1%} below %{x:.3f}; distance ${short(r.distance)}, bound ${short(r.band)}, ${r.count} events<extra>${plainLabel(name)}</extra>` });
      }
      return { data, layout: { xaxis: { text: "1 − exp(−residual)", range: [0, 1] }, yaxis: { text: "share of the events of all paths", range: [0, 1], tickformat: ".0%" } } };
    }

    acceptance() {
      const { lane } = this.lanes().find(({ lane }) => lane.acceptance?.length) || {};
      if (!lane) return this.empty("nothing was drafted yet");
      const x = lane.acceptance.map((_, k) => k + 1);
      const bar = (name, at, color, pattern) => ({ name, type: "bar", x, y: lane.acceptance.map((row) => row[at]), marker: { color, opacity: at ? 0.45 : 1, pattern: { shape: pattern } }, hovertemplate: `%{y:.1%} ${name}, place %{x}<extra></extra>` });
      return { data: [bar("together", 0, this.color(1), ""), bar("time, then kind", 1, this.color(1), "/")], layout: { barmode: "group", showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } }, margin: { l: 40, r: 8, t: 44, b: 34 },
        xaxis: { text: "place in the draft, all before it kept", dtick: x.length > 12 ? 4 : 1 }, yaxis: { text: "chance to be kept", tickformat: ".0%", range: [0, 1.04] } } };
    }
  }

  lab.mountEvents = (element, props, watch) => {
    const view = new Events(element, props);
    const take = () => view.take(props.value);
    watch("value", take);
    take();
  };
})();
