/* The body of a lane that writes text: its tokens, and below them the draft, tree or window of the last step. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.TextBody) return;
  const { h, set, CIVIDIS, branches, confidence, token } = lab;

  /* board: tells `paint`, how tokens are coloured. A body shows the first k steps of its lane. */
  class TextBody {
    constructor(board, index) {
      Object.assign(this, { board, index, shown: 0, stepsDrawn: 0, tokens: [], ends: [0], counts: {} });
      this.node = h("div", { class: "dl-text", role: "listbox", "aria-orientation": "horizontal", tabindex: "-1" });
      this.caret = h("span", { class: "dl-caret", "aria-hidden": "true" });
      this.node.append(this.caret);
      this.ghostLabel = h("span", { class: "dl-ghost-label" });
      this.ghostRows = h("div", { class: "dl-ghost-rows" });
      this.ghost = h("div", { class: "dl-ghost" }, this.ghostLabel, this.ghostRows);
      this.node.addEventListener("click", (e) => { const t = e.target.closest(".dl-tok"); if (t) this.rove(t); });
      this.node.addEventListener("keydown", (e) => this.onKey(e));
      this.node.addEventListener("scroll", () => {
        this.stick = this.node.scrollHeight - this.node.scrollTop - this.node.clientHeight < 24;
      }, { passive: true });
    }

    draw(lane, k, moving) {
      while (this.stepsDrawn < lane.steps.length) this.appendStep(lane);
      this.showSteps(lane, k);
      this.drawGhost(lane, k);
      this.caret.hidden = !moving;
      if (moving && this.stick !== false) this.node.scrollTop = this.node.scrollHeight;
    }

    /* Append the tokens that one step committed. */
    appendStep(lane) {
      const index = this.stepsDrawn, step = lane.steps[index], nodes = document.createDocumentFragment();
      const marks = step.marks.filter((m) => m[2] === "kept" || m[2] === "fixed" || m[2] === "bonus").sort((a, b) => a[0] - b[0]);
      for (const mark of marks) {
        const node = token(mark);
        node.setAttribute("role", "option");
        node.setAttribute("tabindex", this.tokens.length ? "-1" : "0");
        node.hidden = true;
        node.dlab = { mark, step: index, lane };
        this.tint(node);
        this.tokens.push(node);
        const text = step.figures?.texts > 1 ? this.part(Math.floor(mark[0] / step.figures.share)) : nodes;
        text.append(node);
      }
      this.node.insertBefore(nodes, this.caret);
      this.ends.push(this.tokens.length);
      this.stepsDrawn += 1;
    }

    /* The paragraph of one of several texts that a lane writes at once. */
    part(i) {
      this.parts ??= [];
      for (let n = this.parts.length; n <= i; n++) {
        const part = h("span", { class: "dl-part" }, h("small", { "aria-hidden": "true" }, `${n + 1}`));
        this.parts.push(part);
        this.node.insertBefore(part, this.caret);
      }
      return this.parts[i];
    }

    showSteps(lane, k) {
      const want = this.ends[k];
      for (; this.shown < want; this.shown++) this.reveal(this.tokens[this.shown], 1);
      while (this.shown > want) { this.shown -= 1; this.reveal(this.tokens[this.shown], -1); }
      const last = this.ends[Math.max(0, k - 1)];
      const fresh = new Set(this.tokens.slice(last, want));
      for (const node of this.fresh || []) if (!fresh.has(node)) node.classList.remove("is-new");
      for (const node of fresh) node.classList.add("is-new");
      this.fresh = fresh;
      this.node.setAttribute("aria-label", `Text of lane ${this.index + 1}, ${lane.meta.name}, ${want} tokens`);
    }

    reveal(node, sign) {
      node.hidden = sign < 0;
      const fate = node.dataset.f;
      this.counts[fate] = (this.counts[fate] || 0) + sign;
    }

    /* The draft, tree or window of the last step. */
    drawGhost(lane, k) {
      if (this.ghostAt === k && this.ghostPaint === this.board.paint) return;
      this.ghostAt = k;
      this.ghostPaint = this.board.paint;
      const step = k ? lane.steps[k - 1] : null;
      const marks = step ? step.marks.filter((m, i) => { m.at = i; return m[2] !== "bonus" || step.marks.length > 1; }) : [];
      this.ghost.classList.toggle("is-empty", !marks.length);
      const tree = marks.some((m) => m[6] !== null && m[6] !== undefined);
      set(this.ghostLabel, !step ? "" : step.note || (tree ? "tree" : marks.some((m) => m[2] === "guess") ? "window" : marks.length ? "draft" : "no draft"));
      const rows = tree ? branches(marks) : [marks.slice(0, 64)];
      this.ghostRows.replaceChildren(...rows.slice(0, 6).map((row) => h("div", { class: "dl-ghost-row" }, ...row.map((mark) => {
        const node = token(mark, true);
        node.dlab = { mark, step: k - 1, lane };
        this.tint(node);
        return node;
      }))), ...(rows.length > 6 ? [h("span", { class: "dl-more" }, `${rows.length - 6} more branches`)] : []));
    }

    retint() { for (const node of this.tokens) this.tint(node); }

    tint(node) {
      if (this.board.paint === "origin") { node.style.removeProperty("--heat"); return; }
      const { mark, step, lane } = node.dlab;
      const x = this.board.paint === "step" ? step / Math.max(1, lane.steps.length - 1) : confidence(mark);
      if (x === null || x === undefined) node.style.removeProperty("--heat");
      else node.style.setProperty("--heat", CIVIDIS[Math.round(8 * Math.max(0, Math.min(1, x)))]);
    }

    /* ---- moving between tokens ---- */
    rove(node) {
      for (const other of this.node.querySelectorAll('.dl-tok[tabindex="0"]')) other.setAttribute("tabindex", "-1");
      node.setAttribute("tabindex", "0");
      node.focus();
    }

    onKey(event) {
      const node = event.target.closest?.(".dl-tok");
      if (!node) return;
      const i = this.tokens.indexOf(node), last = this.shown - 1;
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, ArrowDown: i + 8, ArrowUp: i - 8, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.rove(this.tokens[Math.max(0, Math.min(last, to))]);
    }
  }

  lab.TextBody = TextBody;
})();
