/* The body of a lane that forecasts: its fan behind the past, and strips of calls, widths and acceptance below. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.FanBody) return;
  const { h, set, svg, ticks, path, plain, fanOf, rangeOf, stretches, dater, isNumber, BANDS, MIDDLE } = lab;

  const LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 20;
  const short = (y) => (isNumber(y) ? String(Number(y.toPrecision(5))) : "–");

  class FanBody {
    constructor(board, index) {
      Object.assign(this, { board, index, counts: {}, drawn: "" });
      this.box = h("div", { class: "dl-fan", tabindex: "0", role: "application", "aria-roledescription": "fan chart" });
      this.cross = h("i", { class: "dl-cross", hidden: true, "aria-hidden": "true" });
      this.tip = h("div", { class: "dl-card dl-fan-tip", role: "tooltip", hidden: true });
      this.told = h("span", { class: "dl-sr", role: "status" });
      this.node = h("div", { class: "dl-fans" }, this.box, this.cross, this.told, this.tip);
      this.placesLabel = h("span", { class: "dl-ghost-label" });
      this.places = h("div", {});
      this.calls = h("div", {});
      this.widths = h("div", {});
      this.ghost = h("div", { class: "dl-ghost dl-strips" }, h("div", { class: "dl-strip-places" }, this.placesLabel, this.places),
        h("div", {}, h("span", { class: "dl-ghost-label" }, "what each call wrote"), this.calls,
          h("span", { class: "dl-ghost-label", title: index ? "dashed: that of lane 1" : "" }, "width of the 80 % band"), this.widths));
      this.listen();
    }

    listen() {
      const at = (e) => this.stepAt(e.clientX - this.box.getBoundingClientRect().left);
      this.box.addEventListener("pointermove", (e) => this.point(at(e)));
      this.box.addEventListener("pointerdown", (e) => this.point(at(e)));
      this.box.addEventListener("pointerleave", () => this.leave());
      this.box.addEventListener("blur", () => this.leave());
      this.box.addEventListener("focus", () => { if (this.fan && this.box.matches(":focus-visible")) this.point(this.at ?? 0, true); });
      this.box.addEventListener("keydown", (e) => this.onKey(e));
      new ResizeObserver(() => { if (this.lane) this.draw(this.lane, this.k); }).observe(this.node);
    }

    draw(lane, k) {
      const fan = fanOf(lane);
      Object.assign(this, { lane, k });
      if (!fan) return;
      const { race } = this.board, wide = Math.floor(this.node.clientWidth), range = rangeOf(race), base = race.lanes[0];
      const key = [k, wide, range, lane.steps.length, base === lane ? 0 : race.at(base)].join("|");
      this.fan = fan.to(k);
      this.counts = fan.counts;
      if (key === this.drawn || wide < 80) return;
      this.drawn = key;
      if (base !== lane) fanOf(base)?.to(race.at(base));
      this.measure(wide, range);
      this.box.replaceChildren(this.chart());
      const done = k ? lane.steps[k - 1].units : 0;
      this.box.setAttribute("aria-label", `Fan of lane ${this.index + 1}, ${lane.meta.name}: ${done} of ${fan.horizon} steps forecast after ${k} ${k === 1 ? "call" : "calls"}. Arrow keys move along the steps.`);
      this.strips();
    }

    retint() {}

    measure(wide, [low, high]) {
      const { fan } = this, { past, horizon } = fan, room = wide - LEFT - RIGHT;
      this.wide = wide;
      this.tall = Math.round(Math.min(300, Math.max(190, 0.52 * wide)));
      this.X = (i) => LEFT + (room * (i + past + 0.5)) / (past + horizon);
      this.Y = (y) => TOP + (this.tall - TOP - BOTTOM) * (1 - (y - low) / (high - low || 1));
      this.range = [low, high];
    }

    chart() {
      const { fan, X, Y, wide, tall } = this, color = `var(--dl-lane-${(this.index % 4) + 1})`, [low, high] = this.range;
      const root = svg("svg", { width: wide, height: tall, class: "dl-fan-chart", "aria-hidden": "true" }), origin = X(-0.5);
      const clip = `${this.board.id}-clip-${this.index}`;
      root.append(svg("clipPath", { id: clip }, svg("rect", { x: LEFT, y: TOP - 4, width: wide - LEFT - 2, height: tall - TOP - BOTTOM + 8 })));
      root.append(svg("rect", { x: origin, y: TOP, width: wide - RIGHT - origin, height: tall - TOP - BOTTOM, class: "dl-ahead" }));
      this.axes(root, low, high);
      const plot = svg("g", { "clip-path": `url(#${clip})` });
      const last = fan.context.length - 1, from = isNumber(fan.context[last]) ? [X(-1), Y(fan.context[last])] : null;
      for (const [a, b, name] of BANDS) this.band(plot, fan.q[a], fan.q[b], from, name, color);
      for (const [, values] of fan.paths) this.line(plot, values, { class: "dl-thin", stroke: color }, from);
      this.refused(plot);
      this.line(plot, fan.context.slice(-fan.past), { class: "dl-past" }, null, -Math.min(fan.past, fan.context.length));
      this.line(plot, fan.q[MIDDLE], { class: "dl-median", stroke: color }, from);
      this.line(plot, fan.truth, { class: "dl-truth" }, from);
      root.append(plot, svg("line", { x1: origin, x2: origin, y1: TOP, y2: tall - BOTTOM, class: "dl-origin-line" }));
      return root;
    }

    axes(root, low, high) {
      const { fan, X, Y, wide, tall } = this, axes = svg("g", { class: "dl-axes" }), date = dater(fan.ds), first = fan.context.length;
      for (const v of ticks(low, high, 4)) axes.append(svg("line", { x1: LEFT, x2: wide - RIGHT, y1: Y(v), y2: Y(v) }), svg("text", { x: LEFT - 5, y: Y(v) + 3.5, "text-anchor": "end" }, plain(v)));
      const count = Math.max(2, Math.floor((wide - LEFT) / 104)), all = fan.past + fan.horizon;
      for (let n = 0; n < count; n++) {
        const i = Math.round(-fan.past + ((n + 0.5) * all) / count);
        axes.append(svg("text", { x: X(i), y: tall - 5, "text-anchor": "middle" }, date(fan.ds[first + i] ?? "")));
      }
      root.append(axes);
    }

    band(plot, lower, upper, from, name, fill) {
      const { X, Y } = this;
      for (const [a, b] of stretches(lower.map((y, i) => (isNumber(upper[i]) ? y : null)))) {
        const over = [], under = [];
        for (let i = a; i <= b; i++) { over.push([X(i), Y(upper[i])]); under.unshift([X(i), Y(lower[i])]); }
        plot.append(svg("path", { d: `${path([...(a === 0 && from ? [from] : []), ...over, ...under])}Z`, class: "dl-band", "data-band": name, fill }));
      }
    }

    line(plot, values, attrs, from, first = 0) {
      const { X, Y } = this;
      for (const [a, b] of stretches(values)) {
        const points = [];
        for (let i = a; i <= b; i++) points.push([X(first + i), Y(values[i])]);
        if (a === 0 && from) points.unshift(from);
        if (points.length === 1) points.push([points[0][0] + 1.5, points[0][1]]);
        plot.append(svg("path", { d: path(points), ...attrs }));
      }
    }

    refused(plot) {
      const { X, Y } = this;
      for (const { at, values, step } of this.fan.refused) {
        const points = values.map((y, i) => [X(at + i), Y(y)]);
        if (points.length === 1) points.push([points[0][0] + 2, points[0][1]]);
        plot.append(svg("path", { d: path(points), class: `dl-refused${step === this.k - 1 ? " is-new" : ""}` }));
      }
    }

    strips() {
      const { fan, lane, k, wide } = this, { race } = this.board, edge = Math.round(this.X(-0.5)), X = (i) => this.X(i) - edge, color = `var(--dl-lane-${(this.index % 4) + 1})`;
      this.ghost.style.setProperty("--edge", `${edge}px`);
      const seek = (to) => { race.pause(); race.seek(lane.steps[to - 1].clock); };
      this.calls.replaceChildren(lab.timeline(this, fan, lane, k, X, seek));
      this.widths.replaceChildren(lab.widths(race, fan, X, color));
      set(this.placesLabel, fan.places.length ? "accepted by place  ○ 2Φ(−D/2)" : "");
      this.places.replaceChildren(lab.places(fan, lane, k, Math.min(edge - 10, 210), color));
    }

    /* ---- one step ---- */
    stepAt(x) {
      const { fan } = this;
      if (!fan) return 0;
      const room = this.wide - LEFT - RIGHT, i = Math.round(((x - LEFT) * (fan.past + fan.horizon)) / room - fan.past - 0.5);
      return Math.max(-fan.past, Math.min(fan.horizon - 1, i));
    }

    point(i, say = false) {
      if (!this.fan) return;
      this.at = i;
      for (const column of this.board.columns) column.body.mark(i);
      const rows = this.facts(i), { fan } = this;
      this.tip.replaceChildren(h("div", { class: "dl-card-token" }, fan.ds[fan.context.length + i] ?? ""),
        h("dl", {}, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
      this.tip.hidden = false;
      const box = this.box.getBoundingClientRect(), own = this.tip.getBoundingClientRect(), x = box.left + this.X(i);
      this.tip.style.left = `${Math.max(8, Math.min(innerWidth - own.width - 8, x + 14 + own.width < innerWidth ? x + 14 : x - own.width - 14))}px`;
      this.tip.style.top = `${Math.max(8, Math.min(innerHeight - own.height - 8, box.top + 8))}px`;
      if (say) set(this.told, `${fan.ds[fan.context.length + i] ?? ""}: ${rows.map((row) => row.join(" ")).join(", ")}`);
    }

    facts(i) {
      const { fan } = this;
      if (i < 0) return [["observed", short(fan.context[fan.context.length + i])]];
      const rows = [["step", `${i + 1} of ${fan.horizon}`]];
      if (fan.truth.length) rows.push(["truth", short(fan.truth[i])]);
      rows.push(["median", short(fan.q[MIDDLE][i])]);
      for (const [a, b, name] of [...BANDS].reverse()) if (isNumber(fan.q[a][i])) rows.push([`${name} % band`, `${short(fan.q[a][i])} to ${short(fan.q[b][i])}`]);
      return rows;
    }

    /* The cross at a step, in this lane as in all others. */
    mark(i) {
      if (!this.fan || i < -this.fan.past || i >= this.fan.horizon) { this.cross.hidden = true; return; }
      this.cross.hidden = false;
      Object.assign(this.cross.style, { left: `${this.X(i)}px`, top: `${TOP}px`, height: `${this.tall - TOP - BOTTOM}px` });
    }

    leave() {
      this.tip.hidden = true;
      for (const column of this.board.columns) column.body.cross.hidden = true;
    }

    onKey(event) {
      const { fan } = this, to = { ArrowRight: (this.at ?? -1) + 1, ArrowLeft: (this.at ?? 1) - 1, Home: 0, End: (fan?.horizon ?? 1) - 1 }[event.key];
      if (to === undefined || !fan) return;
      event.preventDefault();
      event.stopPropagation();
      this.point(Math.max(-fan.past, Math.min(fan.horizon - 1, to)), true);
    }
  }

  /* How a layer of the chart looks, for its button. */
  function layerSign(name) {
    const root = svg("svg", { width: 18, height: 10, "aria-hidden": "true" }), line = (attrs) => svg("path", { d: "M0,7L5,3L11,6L18,2", stroke: "currentColor", ...attrs });
    if (name === "bands") root.append(...BANDS.map(([, , band], i) => svg("rect", { x: 0, width: 18, y: 1.4 * i, height: 10 - 2.8 * i, class: "dl-band", "data-band": band, fill: "currentColor" })));
    else root.append(line({ class: { paths: "dl-thin", truth: "dl-truth", refused: "dl-refused" }[name], ...(name === "refused" ? { "stroke-opacity": 1 } : {}) }));
    return root;
  }

  Object.assign(lab, { FanBody, layerSign });
})();
