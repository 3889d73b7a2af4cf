/* Draft trees: how the guesses of a step hang together, and the view that draws one. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.treeOf) return;
  const { h, set, known, token, chance, percent, FATES } = lab;

  const MOST = 64; /* nodes in a picture */
  const ROW = 27;
  const DRAFTED = new Set(["kept", "rejected", "unread"]), DRAWN = new Set(["fixed", "bonus"]);

  /* The parent of every mark of a step, as an index into its marks; -1 hangs from the text, null is no guess.
     A chain's marks name no parent: there it is the guess one slot before. */
  function links(step) {
    if (step.links) return step.links;
    const { marks } = step, guesses = marks.some((m) => DRAFTED.has(m[2])) ? DRAFTED : new Set(["guess"]);
    const first = marks.reduce((least, m) => (guesses.has(m[2]) ? Math.min(least, m[0]) : least), Infinity);
    const before = new Map(); /* slot -> the last guess there */
    const found = marks.map((m, i) => {
      if (!guesses.has(m[2])) return null;
      const parent = known(m[6]) ? m[6] : m[0] === first ? -1 : before.get(m[0] - 1) ?? -1;
      before.set(m[0], i);
      return parent;
    });
    marks.forEach((m, i) => {
      if (!DRAWN.has(m[2])) return;
      const at = marks.findIndex((other) => other[2] === "kept" && other[0] === m[0] - 1);
      found[i] = at >= 0 ? at : -1;
    });
    step.links = found;
    return found;
  }

  /* The tree of a step: nodes with depth, rank among siblings, trust (product of q, or p, along the path) and place. */
  function treeOf(step, most = MOST) {
    const parents = links(step), byIndex = new Map(), nodes = [];
    const guesses = step.marks.filter((m, i) => parents[i] !== null && !DRAWN.has(m[2]));
    const first = Math.min(...(guesses.length ? guesses : step.marks).map((m) => m[0]));
    step.marks.forEach((mark, i) => {
      if (parents[i] === null || parents[i] === undefined) return;
      const node = { mark, i, fate: mark[2], depth: mark[0] - first, parent: parents[i], children: [], rank: 0 };
      byIndex.set(i, node);
      nodes.push(node);
    });
    const roots = [];
    for (const node of nodes) {
      const above = byIndex.get(node.parent), siblings = above ? above.children : roots;
      node.above = above || null;
      const sure = DRAWN.has(node.fate) ? 1 : node.mark[5] ?? node.mark[4] ?? 1;
      node.trust = (above ? above.trust : 1) * Math.max(0, Math.min(1, sure));
      node.rank = siblings.filter((s) => !DRAWN.has(s.fate)).length + 1;
      siblings.push(node);
    }
    const bright = (n) => n.fate === "kept" || DRAWN.has(n.fate);
    let shown = nodes;
    if (nodes.length > most) {
      const kept = new Set(nodes.filter(bright));
      const rest = nodes.filter((n) => !kept.has(n)).sort((a, b) => b.trust - a.trust || a.depth - b.depth || a.i - b.i);
      for (const n of rest) if (kept.size < most && (!n.above || kept.has(n.above))) kept.add(n);
      shown = nodes.filter((n) => kept.has(n));
    }
    const visible = new Set(shown);
    let leaf = 0;
    const place = (node) => {
      const below = node.children.filter((c) => visible.has(c));
      if (!below.length) { node.row = leaf++; return; }
      below.forEach(place);
      node.row = below[0].row;
    };
    roots.filter((r) => visible.has(r)).forEach(place);
    return { nodes: shown, hidden: nodes.length - shown.length, rows: leaf, depth: Math.max(0, ...shown.map((n) => n.depth)) + 1, roots, bright };
  }

  /* What a step did at each depth: guesses made, guesses whose parent was accepted ("in play"), accepted ones, and by
     rank how often a guess was in play and how often it was the accepted one. */
  function profile(step) {
    if (step.profile) return step.profile;
    const parents = links(step), drafted = [], play = [], kept = [], ranks = [], hits = [], order = new Map();
    const first = Math.min(...step.marks.filter((m) => DRAFTED.has(m[2])).map((m) => m[0]));
    step.marks.forEach((mark, i) => {
      if (!DRAFTED.has(mark[2])) return;
      const d = mark[0] - first, parent = parents[i], rank = order.get(parent) || 0;
      order.set(parent, rank + 1);
      drafted[d] = (drafted[d] || 0) + 1;
      if (parent !== -1 && step.marks[parent]?.[2] !== "kept") return;
      const good = mark[2] === "kept" ? 1 : 0;
      play[d] = (play[d] || 0) + 1;
      kept[d] = (kept[d] || 0) + good;
      ((ranks[d] ??= [])[rank] ??= 0); ranks[d][rank] += 1;
      ((hits[d] ??= [])[rank] ??= 0); hits[d][rank] += good;
    });
    step.profile = { drafted, play, kept, ranks, hits };
    return step.profile;
  }

  const RULES = { kept: "", fixed: "", bonus: "", rejected: "5 4", unread: "1.5 4", guess: "3 3" };

  /* The tree as nodes on lines: bubbles grow with trust, the accepted path is bold. */
  class TreeView {
    constructor() {
      this.caption = h("p", { class: "dl-in-caption" });
      this.lines = lab.svg("svg", { class: "dl-tree-lines", "aria-hidden": "true" });
      this.field = h("div", { class: "dl-tree-field", role: "tree" }, this.lines);
      this.scroll = h("div", { class: "dl-tree" }, this.field);
      this.root = h("div", {}, this.caption, this.scroll, legend());
      this.field.addEventListener("keydown", (e) => this.onKey(e));
      this.nodes = [];
    }

    draw({ lane, k, step, width, card }) {
      const tree = treeOf(step);
      const columns = tree.depth, LEFT = width > 600 ? 116 : 84;
      const wide = Math.max(80, Math.min(150, (width - LEFT - 12) / Math.max(1, columns)));
      const x = (n) => LEFT + n.depth * wide, y = (n) => 14 + n.row * ROW;
      const tall = Math.max(1, tree.rows) * ROW + 10;
      this.field.style.width = `${Math.max(width - 4, LEFT + columns * wide + 8)}px`;
      this.field.style.height = `${tall}px`;
      lab.attributes(this.lines, { width: LEFT + columns * wide + 8, height: tall });
      const lines = [], marks = [];
      this.nodes = tree.nodes;
      for (const node of tree.nodes) {
        const left = x(node), top = y(node), radius = 3.2 + 4.8 * Math.sqrt(node.trust), bright = tree.bright(node);
        const from = node.above ? [x(node.above) + 4, y(node.above)] : [LEFT - 30, 14];
        const turn = left - 13;
        lines.push(lab.svg("path", { d: `M${from[0]},${from[1]} ${from[1] === top ? "" : `L${turn - 6},${from[1]} C${turn},${from[1]} ${turn - 6},${top} ${turn},${top} `}L${left},${top}`,
          class: `dl-edge${bright ? " is-path" : ""}`, "stroke-dasharray": RULES[node.fate], "stroke-width": bright ? 3 : (1 + node.trust).toFixed(2) }));
        marks.push(lab.svg("circle", { cx: left, cy: top, r: radius.toFixed(2), class: "dl-bubble", "data-f": node.fate, "fill-opacity": bright ? 1 : (0.12 + 0.6 * node.trust).toFixed(2) }));
        const siblings = (node.above ? node.above.children : tree.roots).filter((s) => s.fate !== "fixed" && s.fate !== "bonus");
        if (siblings.length > 1 && siblings.includes(node)) marks.push(lab.svg("text", { x: turn + 1, y: top - 3.5, class: "dl-rank" }, String(node.rank)));
      }
      this.lines.replaceChildren(...lines, ...marks);
      const held = this.field.contains(document.activeElement) ? this.focused : -1;
      const labels = tree.nodes.map((node, at) => {
        const label = token(node.mark, true);
        label.classList.add("dl-node");
        label.style.cssText = `left:${x(node) + 11}px;top:${y(node) - 11}px;max-width:${node.children.length ? wide - 30 : 170}px;--trust:${(0.66 + 0.34 * node.trust).toFixed(2)}`;
        label.setAttribute("role", "treeitem");
        label.setAttribute("aria-level", String(node.depth + 1));
        label.setAttribute("aria-label", `${node.mark[1] || "nothing"}, ${(FATES[node.fate] || [node.fate])[0]}, rank ${node.rank}`);
        label.setAttribute("tabindex", at === Math.max(0, held) ? "0" : "-1");
        label.dlab = { mark: node.mark, step: k - 1, lane, facts: factsOf(node) };
        node.label = label;
        return label;
      });
      const root = h("span", { class: "dl-root", style: `width:${LEFT - 34}px`, title: "the text so far" }, h("bdi", {}, before(lane, k)));
      this.field.replaceChildren(this.lines, root, ...labels);
      if (held >= 0) labels[Math.min(held, labels.length - 1)]?.focus({ preventScroll: true });
      card?.hide();
      const text = sentence(tree, step, lane, k);
      set(this.caption, text);
      this.field.setAttribute("aria-label", text);
    }

    onKey(event) {
      const at = this.nodes.findIndex((n) => n.label === event.target), node = this.nodes[at];
      if (!node) return;
      const below = node.children.find((c) => c.label), rows = [...this.nodes].sort((a, b) => a.row - b.row || a.depth - b.depth);
      const beside = (by) => {
        const level = rows.filter((n) => n.depth === node.depth);
        return level[level.indexOf(node) + by];
      };
      const to = { ArrowRight: below, ArrowLeft: node.above, ArrowDown: beside(1), ArrowUp: beside(-1), Home: this.nodes[0], End: this.nodes.filter((n) => n.fate === "kept" || DRAWN.has(n.fate)).at(-1) };
      if (!(event.key in to)) return;
      event.preventDefault();
      event.stopPropagation();
      const next = to[event.key];
      if (!next?.label) return;
      node.label.setAttribute("tabindex", "-1");
      next.label.setAttribute("tabindex", "0");
      next.label.focus();
      this.focused = this.nodes.indexOf(next);
    }
  }

  /* The last words of the text in front of a step. */
  function before(lane, k, none = "the prompt") {
    const pieces = [];
    for (let s = k - 2; s >= 0 && pieces.length < 4; s--) {
      const done = lane.steps[s].marks.filter((m) => m[2] === "kept" || DRAWN.has(m[2])).sort((a, b) => b[0] - a[0]);
      pieces.push(...done.map((m) => m[1] || ""));
    }
    return pieces.length ? `…${lab.shown(pieces.slice(0, 4).reverse().join(""))}` : none;
  }

  function factsOf(node) {
    const facts = [["depth", node.depth + 1]];
    if (!DRAWN.has(node.fate)) facts.push(["rank among siblings", node.rank], [known(node.mark[5]) ? "q along the path" : "p along the path", chance(node.trust)]);
    return facts;
  }

  function sentence(tree, step, lane, k) {
    const guesses = tree.nodes.filter((n) => !DRAWN.has(n.fate)).length + tree.hidden, kept = tree.nodes.filter((n) => n.fate === "kept").length;
    if (!guesses) return `Step ${k} of ${lane.steps.length}: no guesses, the target drew by itself.`;
    const shape = tree.nodes.some((n) => n.rank > 1 && !DRAWN.has(n.fate)) ? `a tree of ${guesses} guesses, ${Math.max(...tree.nodes.filter((n) => !DRAWN.has(n.fate)).map((n) => n.depth)) + 1} deep` : `a chain of ${guesses} ${guesses === 1 ? "guess" : "guesses"}`;
    const gone = tree.hidden ? ` The ${tree.hidden} least trusted are left out.` : "";
    return `Step ${k} of ${lane.steps.length}: ${shape}, ${kept} accepted (${percent(kept / guesses)} of the guesses).${gone}`;
  }

  function legend() {
    const key = (fate, text) => h("span", {}, h("i", { class: "dl-dot", "data-f": fate, "aria-hidden": "true" }), text);
    return h("p", { class: "dl-in-legend" }, key("kept", "accepted, bold line"), key("rejected", "rejected, dashed"), key("unread", "not reached, dotted"),
      key("fixed", "the target's own draw, double ring"), h("span", {}, "bubble: trust, the product of q (or p) along the path"), h("span", {}, "number on a line: rank among siblings"));
  }

  Object.assign(lab, { treeOf, links, profile, before, TreeView, DRAFTED });
})();
