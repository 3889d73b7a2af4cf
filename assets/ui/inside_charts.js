/* Views of guesses as small charts: by depth, by step, the gap to the best possible, any figure. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.DepthView) return;
  const { h, set, number, percent, heat, profile, svg, chart, path, plain } = lab;

  const figure = (title, node, note = "") => h("figure", { class: "dl-in-figure" }, h("figcaption", {}, title, note ? h("small", {}, note) : null), node);

  /* Sums of the profiles of the first k steps. */
  function depths(lane, k) {
    const sum = { steps: 0, drafted: [], play: [], kept: [], ranks: [], hits: [] };
    const add = (to, from) => from.forEach((n, i) => { to[i] = (to[i] || 0) + (n || 0); });
    for (let s = 0; s < k; s++) {
      if (!lane.steps[s].judged) continue;
      const one = profile(lane.steps[s]);
      sum.steps += 1;
      for (const name of ["drafted", "play", "kept"]) add(sum[name], one[name]);
      for (const name of ["ranks", "hits"]) one[name].forEach((list, d) => add((sum[name][d] ??= []), list || []));
    }
    return sum;
  }

  class DepthView {
    constructor() { this.caption = h("p", { class: "dl-in-caption" }); this.grid = h("div", { class: "dl-in-grid" }); this.root = h("div", {}, this.caption, this.grid); }

    draw({ lane, k, width, color }) {
      const sum = depths(lane, k), num = Math.min(24, sum.drafted.length);
      if (!num) { set(this.caption, "No guess has been judged yet."); this.grid.replaceChildren(); return; }
      const each = (name) => Array.from({ length: num }, (_, d) => sum[name][d] || 0);
      const drafted = each("drafted").map((n) => n / sum.steps), play = each("play").map((n) => n / sum.steps), kept = each("kept").map((n) => n / sum.steps);
      const w = columns(width, 3), base = { width: w, x: [0.4, num + 0.6], xticks: Array.from({ length: num }, (_, d) => d + 1).filter((d) => num < 13 || d % 2), xlabel: "depth: place in the draft" };
      const a = chart({ ...base, y: [0, Math.max(...drafted) * 1.05], label: `Guesses a step by depth: ${drafted.map((n, d) => `${d + 1}: ${number(n)} drafted, ${number(play[d])} in play`).join("; ")}` });
      const b = chart({ ...base, y: [0, 1], yformat: (v) => `${Math.round(100 * v)}%`, label: `Steps that accepted a guess, by depth: ${kept.map((n, d) => `${d + 1}: ${percent(n)}`).join(", ")}` });
      const bar = (c, d, value, share, attrs) => c.plot.append(svg("rect", { x: c.X(d + 1 - share / 2), width: Math.max(1, c.X(share) - c.X(0)), y: c.Y(value), height: Math.max(0, c.Y(0) - c.Y(value)), ...attrs }));
      drafted.forEach((n, d) => { bar(a, d, n, 0.76, { class: "dl-waste" }); bar(a, d, play[d], 0.44, { fill: color }); });
      kept.forEach((n, d) => {
        bar(b, d, n, 0.62, { fill: color });
        if (w / num > 26) b.plot.append(svg("text", { x: b.X(d + 1), y: b.Y(n) - 4, class: "dl-value" }, `${Math.round(100 * n)}`));
      });
      set(this.caption, `Over ${sum.steps} steps with a draft. In play: a guess whose whole path before it was accepted, so that it survives to be judged.`);
      const parts = [figure("Surviving drafts", a.root, "grey: drafted a step; colour: still in play"), figure("Accepted by depth", b.root, "share of steps that accepted a guess there")];
      const ranks = Math.max(...sum.ranks.map((r) => (r ? r.length : 0)));
      if (ranks > 1) parts.push(figure("Accuracy by place and rank", matrix(sum, w), "how often the guess of that rank was the accepted one"));
      this.grid.replaceChildren(...parts);
    }
  }

  /* Places across, ranks down: accepted / in play. */
  function matrix(sum, width) {
    const places = Math.min(sum.ranks.length, Math.max(3, Math.floor((width - 44) / 38))), rows = Math.min(8, Math.max(...sum.ranks.map((r) => (r ? r.length : 0))));
    const cell = (d, r) => {
      const n = sum.ranks[d]?.[r];
      if (!n) return h("td", { class: "is-none" }, "");
      const x = sum.hits[d][r] / n;
      return h("td", { style: `background:${heat(x)};color:${x > 0.55 ? "#000" : "#fff"}`, title: `place ${d + 1}, rank ${r + 1}: accepted ${sum.hits[d][r]} of ${n} times` }, `${Math.round(100 * x)}`);
    };
    const range = (n) => Array.from({ length: n }, (_, i) => i);
    return h("div", { class: "dl-matrix" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "rank"), ...range(places).map((d) => h("th", { scope: "col" }, `place ${d + 1}`.replace("place ", d ? "" : "place "))))),
      h("tbody", {}, ...range(rows).map((r) => h("tr", {}, h("th", { scope: "row" }, String(r + 1)), ...range(places).map((d) => cell(d, r)))))));
  }

  const columns = (width, most) => { const n = Math.max(1, Math.min(most, Math.floor(width / 300))); return Math.floor((width - 14 * (n - 1)) / n); };

  /* Steps before k in at most `most` groups of equal size: [{from, to, steps}]. */
  function groups(lane, k, most, all = k) {
    const size = Math.max(1, Math.ceil(all / most)), out = [];
    for (let s = 0; s < k; s += size) out.push({ from: s, to: Math.min(k, s + size), steps: lane.steps.slice(s, Math.min(k, s + size)) });
    return out;
  }
  const mean = (list, f) => list.reduce((sum, x) => sum + f(x), 0) / (list.length || 1);

  class LengthView {
    constructor() { this.caption = h("p", { class: "dl-in-caption" }); this.hint = h("p", { class: "dl-in-hint" }); this.box = h("div", {}); this.root = h("div", {}, this.caption, this.box, this.hint); }

    draw({ lane, k, width, color, seek }) {
      const bars = groups(lane, k, Math.max(8, Math.floor((width - 50) / 4)), lane.steps.length);
      const judged = bars.map((b) => mean(b.steps, (s) => s.judged)), kept = bars.map((b) => mean(b.steps, (s) => s.kept));
      const size = bars.length ? bars[0].to - bars[0].from : 1;
      const c = chart({ width, height: 200, x: [0.5, Math.max(lane.steps.length, 12) + 0.5], y: [0, Math.max(1, ...judged) * 1.05], xlabel: size > 1 ? `step (means of ${size})` : "step", ylabel: "guesses", label: "Draft length by step: kept and wasted guesses" });
      bars.forEach((b, i) => {
        const x = c.X(b.from + 0.5) + 0.5, w = Math.max(1, c.X(b.to + 0.5) - c.X(b.from + 0.5) - 1);
        const group = svg("g", { class: "dl-step", "data-k": b.to });
        group.append(svg("rect", { x, width: w, y: c.top, height: c.bottom - c.top, class: "dl-catch" }),
          svg("rect", { x, width: w, y: c.Y(judged[i]), height: c.Y(kept[i]) - c.Y(judged[i]), class: "dl-waste" }),
          svg("rect", { x, width: w, y: c.Y(kept[i]), height: c.bottom - c.Y(kept[i]), fill: color }));
        c.plot.append(group);
      });
      const total = lane.steps.slice(0, k), all = total.reduce((n, s) => n + s.judged, 0), good = total.reduce((n, s) => n + s.kept, 0);
      set(this.caption, all ? `${good} of ${all} guesses were kept; the grey ones (${percent(1 - good / all)}) were work for nothing. Mean draft: ${number(all / k)} guesses.` : "No drafts so far.");
      set(this.hint, "Press a bar to go to its step.");
      c.root.addEventListener("click", (e) => { const at = e.target.closest(".dl-step"); if (at) seek(Number(at.dataset.k)); });
      this.box.replaceChildren(c.root);
    }
  }

  /* ---- the gap to the best possible acceptance ---- */
  const GAP = ["single", "rule", "optimum"];
  const GAP_WORDS = { single: "one draft alone", rule: "the verifier used", optimum: "best possible for these drafts" };

  class GapView {
    constructor() { this.caption = h("p", { class: "dl-in-caption" }); this.bars = h("div", { class: "dl-gap" }); this.box = h("div", {}); this.root = h("div", {}, this.caption, this.bars, this.box); }

    draw({ lane, k, step, width }) {
      const told = lane.steps.slice(0, k).map((s, i) => ({ at: i + 1, f: s.figures })).filter((x) => x.f && GAP.every((key) => Number.isFinite(x.f[key])));
      if (!told.length) { set(this.caption, "No step has told its acceptance yet."); this.bars.replaceChildren(); this.box.replaceChildren(); return; }
      const average = Object.fromEntries(GAP.map((key) => [key, mean(told, (x) => x.f[key])]));
      const now = GAP.every((key) => Number.isFinite(step?.figures?.[key])) ? step.figures : told.at(-1).f;
      const room = average.optimum - average.single;
      set(this.caption, room > 0.0005
        ? `Acceptance of the first guess: the verifier gains ${points(average.rule - average.single)} over one draft, ${percent((average.rule - average.single) / room)} of what any verifier could gain.`
        : "Acceptance of the first guess: one draft alone is already as good as any verifier of these drafts could be.");
      this.bars.replaceChildren(meter(`step ${told.find((x) => x.f === now)?.at ?? told.at(-1).at}`, now), meter(`mean of ${told.length}`, average), gapLegend());
      const c = chart({ width, height: 150, x: [1, Math.max(2, k)], y: [0, 1], yformat: (v) => `${Math.round(100 * v)}%`, xlabel: "step", label: "Acceptance by step for one draft, the verifier used and the best possible" });
      for (const key of GAP) {
        const bins = binned(told.map((x) => [x.at, x.f[key]]), 240);
        c.plot.append(svg("path", { d: path(bins.map(([a, b]) => [c.X(a), c.Y(b)])), class: `dl-line is-${key}` }));
      }
      this.box.replaceChildren(c.root);
    }
  }

  const points = (x) => `${(100 * x).toFixed(1)} points`;
  function binned(list, most) {
    const size = Math.ceil(list.length / most), out = [];
    for (let i = 0; i < list.length; i += size) { const part = list.slice(i, i + size); out.push([mean(part, (p) => p[0]), mean(part, (p) => p[1])]); }
    return out;
  }

  function meter(name, f) {
    const cut = (x) => Math.max(0, Math.min(1, x)), single = cut(f.single), rule = Math.max(single, cut(f.rule)), best = Math.max(rule, cut(f.optimum));
    const part = (kind, width, text) => h("i", { class: `is-${kind}`, style: `width:${(100 * width).toFixed(2)}%` }, width > 0.07 ? text : "");
    const text = GAP.map((key) => `${GAP_WORDS[key]} ${percent(f[key])}`).join(", ");
    return h("div", { class: "dl-meter" }, h("b", {}, name), h("span", { class: "dl-stack", role: "img", "aria-label": `${name}: ${text}`, title: text },
      part("single", single, percent(f.single)), part("rule", rule - single, `+${(100 * (f.rule - f.single)).toFixed(1)}`), part("optimum", best - rule, `+${(100 * (f.optimum - f.rule)).toFixed(1)}`)));
  }

  const gapLegend = () => h("p", { class: "dl-in-legend" }, ...GAP.map((key) => h("span", {}, h("i", { class: `dl-swatch is-${key}`, "aria-hidden": "true" }),
    { single: "one draft alone", rule: "gained by the verifier used", optimum: "left on the table: best possible" }[key])));

  /* ---- any figure of the steps, one small plot a name ---- */
  class FigureView {
    constructor() { this.caption = h("p", { class: "dl-in-caption" }); this.grid = h("div", { class: "dl-in-grid" }); this.root = h("div", {}, this.caption, this.grid); }

    draw({ lane, k, width, color, names }) {
      const w = columns(width, 3), all = families(names), known = all.slice(0, 24);
      set(this.caption, `What this strategy says about its steps${all.length > known.length ? `; the first ${known.length} of ${all.length} numbers` : ""}.`);
      this.grid.replaceChildren(...known.map(([name, members]) => {
        const lists = members.map((member) => {
          const list = [];
          for (let s = 0; s < k; s++) { const v = lane.steps[s].figures?.[member]; if (Number.isFinite(v)) list.push([s + 1, v]); }
          return list;
        });
        const values = lists.flatMap((list) => list.map((x) => x[1])), low = Math.min(0, ...values), high = Math.max(...values, low + 1e-9);
        const whole = low >= 0 && high <= 1 ? [0, 1] : [low, high + (high - low) * 0.06];
        const now = lists.length === 1 && lists[0].length ? plain(lists[0].at(-1)[1]) : "";
        const c = chart({ width: w, height: 130, x: [1, Math.max(2, k)], y: whole, yticks: 3, left: 48, label: `${name} by step${now ? `; now ${now}` : ""}` });
        lists.forEach((list, i) => {
          const tone = lists.length === 1 ? color : heat(0.15 + (0.8 * i) / (lists.length - 1)), bins = binned(list, 200).map(([a, b]) => [c.X(a), c.Y(b)]);
          if (lists.length === 1) c.plot.append(svg("path", { d: path(bins), class: "dl-line", stroke: tone }));
          for (const [x, y] of lists.length === 1 ? bins.slice(-1) : bins) c.plot.append(svg("circle", { cx: x, cy: y, r: 2.6, fill: tone }));
        });
        return figure(name.replaceAll("_", " "), c.root, now ? `now ${now}, mean ${plain(mean(values, (v) => v))}` : lists.length > 1 ? `1 to ${lists.length}: from dark to bright` : "");
      }));
    }
  }

  /* Figures that are numbered ("gate 1", "gate 2") share a plot: [[name, [members]]]. */
  function families(names) {
    const found = new Map();
    for (const name of names) {
      const base = name.replace(/ \d+$/, "");
      if (!found.has(base)) found.set(base, []);
      found.get(base).push(name);
    }
    const order = (name) => Number(/\d+$/.exec(name)?.[0] ?? 0);
    return [...found].map(([base, members]) => [base, members.sort((a, b) => order(a) - order(b))]);
  }

  Object.assign(lab, { figure, columns, groups, mean, binned, families, depths, DepthView, LengthView, GapView, FigureView });
})();
