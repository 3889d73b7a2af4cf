/* Speed and accuracy of every lane in one table, below the lanes: costs of the moment shown, scores of the whole. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountScores) return;
  const { h, set, number, times, percent } = lab;

  const digits = (x) => (Number.isFinite(x) ? Number(x.toPrecision(3)).toString() : "–");
  /* head, what it means, cell, which end is better; scores are known when a lane is done and truth was held back. */
  const COLUMNS = [
    ["calls", "target calls, one after the other; one call serves all paths", (m) => (m ? String(m.calls) : "–"), (m) => -m?.calls],
    ["draft calls", "calls of the drafter", (m) => (m ? String(m.draftCalls) : "–")],
    ["ms", "own compute time of the lane", (m) => (m ? number(1000 * m.clock, 0) : "–"), (m) => -m?.clock],
    ["× calls", "calls of lane 1 for as many steps, over its own", (m, s) => (s ? times(s.calls) : "–")],
    ["× time", "time of lane 1 for as many steps, over its own; indicative", (m, s) => (s ? times(s.time) : "–")],
    ["MASE", "mean error of the median over the mean seasonal error of the past: below 1 beats repeating the season", (m, s, v) => digits(v.mase), (m, s, v) => -v.mase],
    ["WQL", "weighted quantile loss over nine levels: lower is better", (m, s, v) => digits(v.wql), (m, s, v) => -v.wql],
    ["in 80 %", "share of the truth inside the 80 % band: 80 % is right", (m, s, v) => percent(v.coverage80), (m, s, v) => -Math.abs(v.coverage80 - 0.8)],
    ["CRPS of sum", "score of the sum over the horizon: needs paths, lower is better", (m, s, v) => digits(v.crps_of_sum), (m, s, v) => -v.crps_of_sum],
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

    draw() {
      const { race } = this;
      this.root.hidden = !race.value || !race.lanes.some((lane) => lane.steps.length);
      if (this.root.hidden) return;
      const told = race.lanes.map((lane) => [race.measures(lane), race.speedups(lane), lane.meta.scores || {}]);
      const best = COLUMNS.map(([, , , rank]) => {
        const ranks = rank ? told.map((t) => rank(...t)).filter(Number.isFinite) : [], first = Math.max(...ranks);
        return first > Math.min(...ranks) ? first : NaN; /* where all are the same, none is best */
      });
      const shown = race.lanes.map((lane, i) => [lane.meta.name, ...COLUMNS.map(([, , cell, rank], c) => [cell(...told[i]), !!rank && rank(...told[i]) === best[c]])]);
      const key = JSON.stringify(shown) + race.lanes.map((lane) => lane.meta.guarantee).join();
      if (key === this.key) return;
      this.key = key;
      const truth = race.lanes.some((lane) => lane.meta.picture?.truth?.length);
      set(this.note, truth ? "Bold: best of its column. The sum over the horizon is known of paths only, not of bands." : "No truth was held back, so nothing can be scored.");
      this.table.replaceChildren(
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "lane"), ...COLUMNS.map(([name, title]) => h("th", { scope: "col", title }, name)), h("th", { scope: "col" }, "guarantee"))),
        h("tbody", {}, ...shown.map(([name, ...cells], i) => h("tr", {}, h("th", { scope: "row" }, h("span", { class: "dl-marker", style: `--lane:var(--dl-lane-${(i % 4) + 1})`, "aria-hidden": "true" }, lab.SIGNS[i % 4]), name),
          ...cells.map(([text, first]) => h("td", { class: first ? "is-best" : "" }, text)),
          h("td", {}, h("span", { class: "dl-chip", "data-kind": race.lanes[i].meta.guarantee }, race.lanes[i].meta.guarantee || "–"))))));
    }
  }

  lab.mountScores = (element, props) => new Scores(element, props.race || "forecast");
})();
