/* Views of one family each: requests in flight, suggestions that grow together, layers left out, exits taken. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.moreViews) return;
  const { h, set, svg, chart, number, percent, shown, heat } = lab;

  const caption = () => h("p", { class: "dl-in-caption" });
  const has = (c, ...names) => names.every((name) => c.figures.has(name));

  /* ---- several texts on one model: a row a text, a column a step ---- */
  const MOST_TEXTS = 24;

  /* When every text arrived, ran its prompt, and wrote: from marks, `share` slots a text, and the waiting of each step. */
  function schedule(lane, k) {
    const texts = [];
    let let_in = 0;
    for (let s = 0; s < k; s++) {
      const step = lane.steps[s], f = step.figures || {};
      let_in += f.admitted || 0;
      const arrived = let_in + (f.waiting || 0);
      for (let i = 0; i < arrived; i++) texts[i] ??= { arrived: s, first: null, last: null, steps: 0 };
      for (const mark of step.marks) {
        const text = texts[Math.floor(mark[0] / f.share)];
        if (!text) continue;
        text.first ??= s;
        text.last = s;
        text.steps += 1;
      }
    }
    return texts;
  }

  class RequestsView {
    constructor() { this.caption = caption(); this.box = h("div", { class: "dl-tree" }); this.root = h("div", {}, this.caption, this.box, gantt()); }

    draw({ lane, k, width, color, seek }) {
      const all = schedule(lane, k), texts = all.slice(0, MOST_TEXTS), steps = Math.max(k, 1);
      const row = 20, top = 8, foot = 54, height = top + row * texts.length + foot;
      const c = chart({ width, height, left: 62, x: [0, Math.max(lane.steps.length, 8)], y: [0, 1], yticks: 0, yformat: () => "", xlabel: "step: one call for all texts in flight", label: "Which text was waiting, running its prompt or being written in every step" });
      c.root.querySelectorAll(".dl-axes line").forEach((line) => line.remove());
      const X = c.X, wide = X(1) - X(0);
      const bar = (y, from, to, kind, fill) => { if (to > from) c.plot.append(svg("rect", { x: X(from), width: Math.max(0.8, X(to) - X(from) - (wide > 4 ? 0.8 : 0)), y, height: row - 5, rx: 2, class: `dl-gantt ${kind}`, fill })); };
      texts.forEach((text, i) => {
        const y = top + row * i;
        c.plot.append(svg("text", { x: 56, y: y + 11, class: "dl-rowname" }, `text ${i + 1}`));
        bar(y, text.arrived, text.first ?? k, "is-wait");
        if (text.first === null) return;
        bar(y, text.first, text.first + 1, "is-prefill", "var(--dl-fixed)");
        bar(y, text.first + 1, text.last + 1, "is-decode", color);
        if (text.last < k - 1) c.plot.append(svg("text", { x: X(text.last + 1) + 3, y: y + 11, class: "dl-rank is-start" }, "✓"));
      });
      const y = top + row * texts.length, most = Math.max(1, ...lane.steps.slice(0, k).map((s) => (s.figures?.padding || 0)));
      c.plot.append(svg("text", { x: 56, y: y + 13, class: "dl-rowname" }, "padding"));
      for (let s = 0; s < k; s++) {
        const rows = lane.steps[s].figures?.padding || 0;
        if (rows) c.plot.append(svg("rect", { x: X(s), width: Math.max(0.8, wide - 0.8), y: y + 16 - (14 * rows) / most, height: (14 * rows) / most, class: "dl-waste" }));
      }
      const group = svg("g");
      for (let s = 0; s < k; s++) group.append(svg("rect", { x: X(s), width: Math.max(0.8, wide), y: top, height: row * texts.length + 16, class: "dl-catch dl-step", "data-k": s + 1 }));
      c.plot.append(group);
      c.root.addEventListener("click", (e) => { const at = e.target.closest(".dl-step"); if (at) seek(Number(at.dataset.k)); });
      this.box.replaceChildren(c.root);
      this.root.style.setProperty("--lane", color);
      set(this.caption, told(lane, k, steps, all));
    }
  }

  function told(lane, k, steps, texts) {
    const f = lane.steps[k - 1].figures || {}, begin = (s) => (s ? lane.steps[s - 1].clock : 0);
    const done = texts.filter((t) => t.last !== null && (t.last < k - 1 || k === lane.steps.length));
    const waits = done.map((t) => lane.steps[t.last].clock - begin(t.arrived)).sort((a, b) => a - b);
    const at = (share) => waits[Math.min(waits.length - 1, Math.floor(share * waits.length))];
    const padding = lane.steps.slice(0, k).reduce((n, s) => n + (s.figures?.padding || 0), 0), moved = lane.steps.slice(0, k).reduce((n, s) => n + (s.figures?.moved || 0), 0);
    const latency = waits.length ? ` Latency from arrival to end: half within ${number(at(0.5), 2)} s, 95 % within ${number(at(0.95), 2)} s.` : "";
    return `Step ${steps}: ${f.alive ?? 0} of ${f.texts ?? texts.length} texts in the call, ${f.waiting ?? 0} waiting. ${padding} rows of padding and ${moved} moves so far.${latency}`;
  }

  const gantt = () => h("p", { class: "dl-in-legend" }, ...[["is-wait", "waiting"], ["is-prefill", "runs its prompt"], ["is-decode", "one token a step"], ["is-pad", "padding: rows without a text"]].map(([kind, text]) =>
    h("span", {}, h("i", { class: `dl-swatch ${kind}`, "aria-hidden": "true" }), text)));

  /* ---- k drafts that grow in lockstep ---- */
  class SuggestView {
    constructor() { this.caption = caption(); this.list = h("ol", { class: "dl-suggest" }); this.stack = h("div", {}); this.root = h("div", {}, this.caption, this.list, this.stack); }

    draw({ lane, k, step }) {
      const at = step.marks.some((m) => m[2] === "guess") ? k : latestGuess(lane, k - 1), from = at ? lane.steps[at - 1] : null;
      if (!from) { set(this.caption, "No suggestions yet."); this.list.replaceChildren(); this.stack.replaceChildren(); return; }
      const committed = at < k ? step.marks.filter((m) => m[2] === "bonus" || m[2] === "kept").map((m) => m[3]) : null;
      const paths = leaves(from), tail = lab.before(lane, at, "");
      set(this.caption, committed ? `Step ${k}: the best of ${paths.length} suggestions was taken.` : `Step ${k} of ${lane.steps.length}: ${paths.length} suggestions, ${Math.max(0, ...paths.map((p) => p.length))} tokens long, from one call a token for all of them.`);
      this.list.replaceChildren(...paths.slice(0, 24).map((path) => {
        const taken = committed && path.length >= committed.length && committed.every((token, i) => path[i]?.[3] === token);
        return h("li", { class: taken ? "is-taken" : "" }, h("span", { class: "dl-quiet" }, tail), h("bdi", {}, shown(path.slice(0, -1).map((m) => m[1] ?? "").join(""))), h("b", {}, h("bdi", {}, shown(path.at(-1)?.[1] ?? ""))), taken ? h("em", {}, "✓ taken") : null);
      }));
      const weights = Object.entries(from.figures || {}).filter(([name]) => /^weight \d+$/.test(name)).map(([name, w]) => [Number(name.slice(7)), w]).sort((a, b) => a[0] - b[0]);
      this.stack.replaceChildren(...(weights.length ? [h("div", { class: "dl-meter" }, h("b", {}, "mixture"), h("span", { class: "dl-stack", role: "img", "aria-label": `weights of the drafts in the call's input: ${weights.map(([i, w]) => `${i}: ${percent(w)}`).join(", ")}` },
        ...weights.map(([i, w]) => h("i", { class: i % 2 ? "is-odd" : "is-even", style: `width:${(100 * w).toFixed(2)}%` }, w > 0.09 ? `${i}: ${percent(w)}` : ""))))] : []));
    }
  }

  function latestGuess(lane, k) {
    for (let s = k; s > 0; s--) if (lane.steps[s - 1].marks.some((m) => m[2] === "guess")) return s;
    return 0;
  }

  /* Root-to-leaf paths of the guesses of a step, in the order of their ends. */
  function leaves(step) {
    const parents = lab.links(step), inner = new Set(parents.filter((p) => p !== null));
    return step.marks.map((m, i) => i).filter((i) => step.marks[i][2] === "guess" && !inner.has(i)).map((leaf) => {
      const path = [];
      for (let i = leaf; i >= 0 && i !== null; i = parents[i]) path.unshift(step.marks[i]);
      return path;
    });
  }

  /* ---- nets that were left out: layers up, steps across ---- */
  class LayersView {
    constructor() { this.caption = caption(); this.box = h("div", {}); this.root = h("div", {}, this.caption, this.box, h("p", { class: "dl-in-hint" }, "Colour: nets left out; the paler, the less alike the state before and after the last net that ran.")); }

    draw({ lane, k, width, color, seek }) {
      const told = lane.steps.slice(0, k).map((s) => s.figures || {}), some = told.find((f) => f.skipped > 0);
      const layers = some ? Math.round((some.last_skipped - some.first_skipped + 1) / some.skipped) : 0;
      const share = told.reduce((n, f) => n + (f.skipped || 0), 0) / (told.length || 1);
      if (!layers) { set(this.caption, "No net has been left out so far."); this.box.replaceChildren(); return; }
      set(this.caption, `${percent(share)} of the feed-forward nets were left out so far; in step ${k} ${percent(told.at(-1).skipped || 0)} of ${layers}.`);
      const c = chart({ width, height: 210, x: [0.5, Math.max(12, lane.steps.length) + 0.5], y: [0, layers], xlabel: "step", ylabel: "layer", label: `Layers whose nets were left out, by step: ${percent(share)} on average` });
      const lowest = Math.min(...told.filter((f) => f.cosine).map((f) => f.cosine), 0.9999);
      told.forEach((f, s) => {
        if (!f.skipped) return;
        const trust = f.cosine ? (f.cosine - lowest) / (1 - lowest) : 1;
        c.plot.append(svg("rect", { x: c.X(s + 0.5), width: Math.max(1, c.X(1) - c.X(0) - 0.6), y: c.Y(f.last_skipped + 1), height: c.Y(f.first_skipped) - c.Y(f.last_skipped + 1), fill: color, "fill-opacity": (0.35 + 0.65 * trust).toFixed(2), class: "dl-step", "data-k": s + 1 }));
      });
      c.root.addEventListener("click", (e) => { const at = e.target.closest(".dl-step"); if (at) seek(Number(at.dataset.k)); });
      this.box.replaceChildren(c.root);
    }
  }

  /* ---- how deep a draft went before it left ---- */
  const exits = (c) => [...c.figures].filter((name) => /^exit \d+$/.test(name)).sort((a, b) => Number(a.slice(5)) - Number(b.slice(5)));

  class ExitsView {
    constructor() { this.caption = caption(); this.grid = h("div", { class: "dl-in-grid" }); this.root = h("div", {}, this.caption, this.grid); }

    draw({ lane, k, width, seek }) {
      const names = exits(lab.contents(lane)), told = lane.steps.slice(0, k).map((s) => s.figures || {}), total = names.map((n) => told.reduce((sum, f) => sum + (f[n] || 0), 0)), all = total.reduce((a, b) => a + b, 0);
      set(this.caption, all ? `${all} guesses left behind ${names.map((n, i) => `layer ${n.slice(5)}: ${percent(total[i] / all)}`).join(", ")}.` : "No guess has left yet.");
      const tone = (i) => heat(names.length < 2 ? 0.5 : 0.2 + (0.75 * i) / (names.length - 1)), w = lab.columns(width, 2);
      const a = chart({ width: w, height: 190, x: [0.4, names.length + 0.6], y: [0, 1], xticks: names.map((_, i) => i + 1), xformat: (v) => names[v - 1]?.slice(5) ?? "", yformat: (v) => `${Math.round(100 * v)}%`, xlabel: "layer behind which a guess left", label: "Share of guesses by exit" });
      names.forEach((n, i) => a.plot.append(svg("rect", { x: a.X(i + 0.7), width: a.X(0.6) - a.X(0), y: a.Y(total[i] / (all || 1)), height: a.bottom - a.Y(total[i] / (all || 1)), fill: tone(i) })));
      const groups = lab.groups(lane, k, Math.max(8, Math.floor(w / 4)), lane.steps.length), most = Math.max(1, ...told.map((f) => names.reduce((sum, n) => sum + (f[n] || 0), 0)));
      const b = chart({ width: w, height: 190, x: [0.5, Math.max(12, lane.steps.length) + 0.5], y: [0, most], xlabel: "step", ylabel: "guesses", label: "Guesses of every step by the layer they left behind" });
      for (const g of groups) {
        let sum = 0;
        names.forEach((n, i) => {
          const v = lab.mean(g.steps, (s) => s.figures?.[n] || 0);
          if (v) b.plot.append(svg("rect", { x: b.X(g.from + 0.5) + 0.4, width: Math.max(1, b.X(g.to + 0.5) - b.X(g.from + 0.5) - 0.8), y: b.Y(sum + v), height: b.Y(sum) - b.Y(sum + v), fill: tone(i), class: "dl-step", "data-k": g.to }));
          sum += v;
        });
      }
      b.root.addEventListener("click", (e) => { const at = e.target.closest(".dl-step"); if (at) seek(Number(at.dataset.k)); });
      this.grid.replaceChildren(lab.figure("Exits taken", a.root), lab.figure("By step", b.root, "dark: left early, bright: went deep"));
    }
  }

  const SKIPS = ["skipped", "first_skipped", "last_skipped", "cosine"], FLEET = ["texts", "share", "alive", "admitted", "waiting", "freed", "padding", "moved"];
  lab.moreViews = {
    requests: { title: () => "Requests in flight", fits: (c) => has(c, "share", "admitted", "waiting"), make: () => new RequestsView(), figures: (name) => FLEET.includes(name), first: true },
    suggest: { title: () => "Suggestions", fits: (c) => c.guessTree, make: () => new SuggestView(), figures: (name) => /^weight \d+$/.test(name), first: true },
    layers: { title: () => "Layers left out", fits: (c) => has(c, "skipped", "first_skipped", "last_skipped"), make: () => new LayersView(), figures: (name) => SKIPS.includes(name), first: true },
    exits: { title: () => "Exit depth", fits: (c) => exits(c).length > 0, make: () => new ExitsView(), figures: (name) => /^exit \d+$/.test(name) },
  };
})();
