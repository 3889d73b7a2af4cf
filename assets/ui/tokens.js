/* Tokens as every view draws them: what can happen to one, its look, and the card that tells all about it. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.token) return;
  const { h, visible, chance, percent } = lab;

  const FATES = {
    kept: ["accepted", "a guess that the target model agreed to"],
    fixed: ["corrected", "drawn by the target in place of a rejected guess"],
    bonus: ["own draw", "drawn by the target with no guess before it"],
    guess: ["guess", "on the canvas, not verified yet"],
    rejected: ["rejected", "judged by the target and thrown away"],
    unread: ["unread", "a guess behind the first rejection"],
    erased: ["masked again", "taken off the canvas, to be drawn once more"], /* only pictures have it */
  };
  /* cividis at nine points: readable for every kind of colour vision */
  const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#fee838"];
  const heat = (x) => CIVIDIS[Math.round(8 * Math.max(0, Math.min(1, x)))];

  const known = (x) => x !== null && x !== undefined;
  const accept = (mark) => {
    const p = mark[4], q = mark[5];
    if (!known(p)) return null;
    return q ? Math.min(1, p / q) : p;
  };

  /* The target's probability of the token at temperature 1 where the mark tells it, else p. */
  const confidence = (mark) => {
    const named = (mark[7] || []).find(([text]) => text === mark[1]);
    return named ? named[1] : mark[7]?.length ? 0 : mark[4];
  };

  const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };
  const shown = (text) => visible(text).replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/ /g, "·");

  /* A token as a node; line breaks are drawn, and obeyed unless it shall stay flat. */
  function token(mark, flat = false) {
    const node = h("span", { class: "dl-tok", "data-f": mark[2] });
    visible(mark[1] ?? "").split("\n").forEach((part, i) => {
      if (i) node.append(h("span", { class: "dl-newline", "aria-hidden": "true" }, "↵"), flat ? "" : "\n");
      if (part) node.append(part);
    });
    return node;
  }

  /* The colour that a token stands for: its name, or the mean colour of what a learned code draws. */
  function colourOf(text, lane) {
    const inks = lane?.meta?.picture?.inks, code = inks && /^code (\d+)$/.exec(text ?? "")?.[1];
    return code ? `#${inks.slice(6 * code, 6 * code + 6)}` : /^(?:.* )?(#[0-9a-f]{6})$/.exec(text ?? "")?.[1];
  }

  /* That colour beside the token's name. */
  function ink(text, lane) {
    const color = colourOf(text, lane);
    if (!color) return null;
    const node = h("span", { class: "dl-ink", "aria-hidden": "true" });
    node.style.background = color;
    return node;
  }

  /* Root-to-leaf paths of a tree of marks. */
  function branches(marks) {
    const byIndex = new Map(marks.map((m) => [m.at, m])), parents = new Set(marks.map((m) => m[6]));
    const drafted = marks.filter((m) => m[2] !== "fixed" && m[2] !== "bonus");
    const leaves = drafted.filter((m) => !parents.has(m.at));
    const paths = leaves.map((leaf) => {
      const path = [];
      for (let m = leaf; m; m = byIndex.get(m[6])) path.unshift(m);
      return path;
    });
    return paths.sort((a, b) => keptIn(b) - keptIn(a));
  }
  const keptIn = (path) => path.filter((m) => m[2] === "kept").length;

  /* The card of the token under the pointer or the focus. A node tells its story in `dlab`: {mark, step, lane, facts}. */
  class Card {
    constructor(id) {
      this.node = h("div", { class: "dl-card", role: "tooltip", id, hidden: true });
    }

    show(target) {
      const node = target.closest?.(".dl-tok");
      if (!node || !node.dlab) { this.hide(); return; }
      if (this.over === node) return;
      this.over = node;
      const { mark, step, lane, facts, where } = node.dlab, [, text, fate, id, p, q, , options] = mark;
      const rows = [["what happened", (FATES[fate] || [fate])[0]], ["step", `${step + 1} of ${lane.steps.length}`], ["token id", id],
        ["p (target)", chance(p)]];
      if (where) rows.unshift(["cell", where]);
      if (known(q)) rows.push(["q (drafter)", chance(q)]);
      if (!facts && accept(mark) !== null && fate !== "bonus" && fate !== "fixed") rows.push([q ? "accepted with min(1, p/q)" : "accepted with", percent(accept(mark))]);
      rows.push(...(facts || []));
      const table = h("dl", {}, ...rows.flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, String(v ?? "–"))]));
      this.node.replaceChildren(h("div", { class: "dl-card-token" }, ink(text, lane), h("bdi", {}, shown(text ?? "") || "∅")), table);
      if (options && options.length) {
        this.node.append(h("p", {}, "most likely here, before temperature"), h("ol", {}, ...options.map(([piece, share]) =>
          h("li", { class: piece === text ? "is-this" : "" }, h("i", { style: `width:${(100 * share).toFixed(1)}%` }), h("bdi", {}, ink(piece, lane), shown(piece)), h("span", {}, chance(share))))));
      }
      this.place(node);
    }

    place(node) {
      this.node.hidden = false;
      node.setAttribute("aria-describedby", this.node.id);
      const at = node.getClientRects()[0] || node.getBoundingClientRect(), box = this.node.getBoundingClientRect();
      const left = Math.max(8, Math.min(at.left, innerWidth - box.width - 8));
      const above = at.top - box.height - 8 > 0;
      const below = at.bottom + 8 + box.height < innerHeight;
      this.node.style.left = `${left}px`;
      this.node.style.top = `${below || !above ? at.bottom + 8 : at.top - box.height - 8}px`;
    }

    hide() { this.over?.removeAttribute("aria-describedby"); this.over = null; this.node.hidden = true; }
  }

  Object.assign(lab, { FATES, CIVIDIS, colourOf, heat, known, confidence, set, shown, token, branches, Card });
})();
