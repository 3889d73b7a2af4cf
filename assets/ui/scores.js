/* Speed and accuracy of every lane in one table, below the lanes: costs of the moment shown, scores of the whole. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountScores) return;
  const { h, set, number, times, percent } = lab;

  const digits = (x) => (Number.isFinite(x) ? Number(x.toPrecision(3)).toString() : "–");
  const banded = (v) => Number.isFinite(v.coverage80), point = (v) => Number.isFinite(v.wql) && !banded(v);
  const bare = (v) => (point(v) ? "a point forecast has no band" : "one sample path has no band: ask for more paths");
  /* head, what it means, cell, which end is better, what is special about a cell; scores are known when a lane is done and truth was held back. */
  const COLUMNS = [
    ["calls", "target calls, one after the other; one call serves all paths", (m) => (m ? String(m.calls) : "–"), (m) => -m?.calls],
    ["draft calls", "calls of the drafter", (m) => (m ? String(m.draftCalls) : "–")],
    ["ms", "own compute time of the lane", (m) => (m ? number(1000 * m.clock, 0) : "–"), (m) => -m?.clock],
    ["× calls", "calls of lane 1 for as many steps, over its own", (m, s) => (s ? times(s.calls) : "–")],
    ["× time", "time of lane 1 for as many steps, over its own; indicative", (m, s) => (s ? times(s.time) : "–")],
    ["MASE", "mean error of the median over the mean seasonal error of the past: below 1 beats repeating the season", (m, s, v) => digits(v.mase), (m, s, v) => -v.mase,
      (v) => (Number.isFinite(v.mase) ? "" : "the past repeats its season without error, or is shorter than it, so there is nothing to measure by")],
    ["WQL", "weighted quantile loss over nine levels: lower is better", (m, s, v) => digits(v.wql) + (point(v) ? " (point)" : ""), (m, s, v) => -v.wql,
      (v) => (point(v) ? "a point forecast: its weighted absolute error, which is what the weighted quantile loss of a single curve comes to" : Number.isFinite(v.wql) ? "" : banded(v) ? "the truth is 0 throughout, so there is nothing to weigh by" : "one sample path tells nothing of the law it is drawn from: ask for more paths")],
    ["in 80 %", "share of the truth inside the 80 % band: 80 % is right", (m, s, v) => percent(v.coverage80), (m, s, v) => -Math.abs(v.coverage80 - 0.8),
      (v) => (banded(v) ? "" : bare(v))],
    ["CRPS of sum", "score of the sum over the horizon: needs paths, lower is better", (m, s, v) => digits(v.crps_of_sum), (m, s, v) => -v.crps_of_sum,
      (v, gaps) => (Number.isFinite(v.crps_of_sum) ? "" : gaps ? "the truth has gaps, so its sum is not known" : banded(v) ? "bands of single steps say nothing of their sum" : bare(v))],
  ];

  class Scores {
    constructor(element, id) {
      this.race = lab.race(id);
      this.table = h("table", {});
      this.note = h("p", { class: "dl-scores-note" });
      this.root = h("section", { class: "dl-scores", "aria-label": "Speed and accuracy", hidden: true },
        h("header", {}, h("h3", {}, "Speed and accuracy"), this.note), lab.scroller("Table of all lanes", this.table));
      element.replaceChildren(this.root);
      this.race.watch(() => this.draw());
    }

    /* What to know of a cell, once its lane is scored. */
    about({ meta }, of) {
      const scores = meta.scores || {}, truth = meta.picture?.truth || [];
      return of && Number.isFinite(scores.smape) ? of(scores, truth.includes(null)) : "";
    }

    draw() {
      const { race } = this;
      this.root.hidden = !race.value || !race.lanes.some((lane) => lane.steps.length);
      if (this.root.hidden) return;
      const told = race.lanes.map((lane) => [race.measures(lane), race.speedups(lane), lane.meta.scores || {}]);
      const best = COLUMNS.map(([, , , rank]) => {
        const ranks = rank ? told.map((t) => rank(...t)).filter(Number.isFinite) : [], first = Math.max(...ranks);
        return first > Math.min(...ranks) ? first : NaN; /* where all are the same, none is best */
      });
      const shown = race.lanes.map((lane, i) => [lane.meta.name, ...COLUMNS.map(([, , cell, rank, about], c) => [cell(...told[i]), !!rank && rank(...told[i]) === best[c], this.about(lane, about)])]);
      const key = JSON.stringify(shown) + race.lanes.map((lane) => lane.meta.guarantee).join();
      if (key === this.key) return;
      this.key = key;
      const truth = race.lanes.some((lane) => lane.meta.picture?.truth?.length);
      set(this.note, truth ? `Bold: best of its column. The sum over the horizon is known of paths only, not of bands.${told.some(([, , v]) => point(v)) ? " (point): weighted absolute error, for a single curve has no law." : ""}` : "No truth was held back, so nothing can be scored.");
      this.table.replaceChildren(
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "lane"), ...COLUMNS.map(([name, title]) => h("th", { scope: "col", title }, name)), h("th", { scope: "col" }, "guarantee"))),
        h("tbody", {}, ...shown.map(([name, ...cells], i) => h("tr", {}, h("th", { scope: "row" }, h("span", { class: "dl-marker", style: `--lane:var(--dl-lane-${(i % 4) + 1})`, "aria-hidden": "true" }, lab.SIGNS[i % 4]), name),
          ...cells.map(([text, first, title]) => h("td", { class: first ? "is-best" : "", ...(title ? { title } : {}) }, text)),
          h("td", {}, h("span", { class: "dl-chip", "data-kind": race.lanes[i].meta.guarantee }, race.lanes[i].meta.guarantee || "–"))))));
    }
  }

  lab.mountScores = (element, props) => new Scores(element, props.race || "forecast");
})();
