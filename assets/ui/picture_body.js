/* The body of a lane that paints: the picture, its token grid beside it, and what the last step did to which cell. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.PictureBody) return;
  const { h, set, heat, confidence, branches, FATES, filmOf, colourOf } = lab;

  const LOOSE = new Set(["guess", "rejected", "unread", "erased"]); /* marks of the last step alone */
  const MOST = 48; /* cells in a row below the pictures */
  const FINE = 32; /* pixels a side from which on a picture is no longer drawn in hard squares where it is made smaller */

  /* One cell of a token grid: a tint of what happened to it, and a sign, since colour is never the only cue. */
  function drawCell(pen, fate, x, y, size, color) {
    const line = Math.max(1, Math.round(size / 9)), inset = Math.max(1, size * 0.22);
    pen.fillStyle = color;
    pen.strokeStyle = color;
    pen.lineWidth = line;
    if (fate === "open") return;
    pen.globalAlpha = { given: 0.28, guess: 0.14, rejected: 0.2, unread: 0.12 }[fate] ?? 0.34;
    pen.fillRect(x, y, size, size);
    pen.globalAlpha = pen.fade ?? 1;
    if (fate === "kept" || fate === "fixed") pen.fillRect(x + size * 0.15, y + size - 1.6 * line, size * 0.7, line);
    if (fate === "fixed") pen.fillRect(x + size * 0.15, y + size - 3.8 * line, size * 0.7, line);
    if (fate === "bonus") pen.fillRect(x + size / 2 - line / 2, y + size / 2 - line / 2, Math.max(1.5, line), Math.max(1.5, line));
    if (fate === "guess") pen.strokeRect(x + inset, y + inset, size - 2 * inset, size - 2 * inset);
    if (fate === "erased") {
      pen.beginPath();
      pen.arc(x + size * 0.35, y + size / 2, size * 0.15, Math.PI, 0);
      pen.arc(x + size * 0.65, y + size / 2, size * 0.15, Math.PI, 0, true);
      pen.stroke();
    }
    if (fate === "rejected" || fate === "unread") {
      pen.beginPath();
      if (fate === "rejected") { pen.moveTo(x + inset, y + inset); pen.lineTo(x + size - inset, y + size - inset); }
      pen.moveTo(x + size - inset, y + inset);
      pen.lineTo(x + inset, y + size - inset);
      pen.stroke();
    }
  }

  class PictureBody {
    constructor(board, index) {
      Object.assign(this, { board, index, counts: {}, at: -1 });
      this.picture = h("canvas", { role: "img", class: "dl-picture" });
      this.grid = h("canvas", { class: "dl-grid", "aria-hidden": "true" });
      this.cursor = h("span", { class: "dl-tok dl-cursor", hidden: true, "aria-hidden": "true" });
      this.told = h("span", { class: "dl-sr", role: "status" });
      this.field = h("div", { class: "dl-cells", tabindex: "0", role: "application", "aria-roledescription": "token grid" }, this.grid, this.cursor);
      this.size = h("span", {});
      this.node = h("div", { class: "dl-pictures" },
        h("figure", {}, this.picture, this.caption = h("figcaption", {}, "picture")),
        h("figure", {}, this.field, h("figcaption", {}, this.size)), this.told);
      this.label = h("span", { class: "dl-ghost-label" });
      this.strip = h("div", { class: "dl-strip", role: "group", "aria-label": "Scales" });
      this.rows = h("div", { class: "dl-swatches" });
      this.ghost = h("div", { class: "dl-ghost dl-ghost-cells" }, this.label, this.strip, this.rows);
      this.listen();
    }

    listen() {
      this.field.addEventListener("pointermove", (e) => { const c = this.cellAt(e); this.point(c.row, c.column); });
      this.field.addEventListener("pointerleave", () => this.leave());
      this.field.addEventListener("blur", () => this.leave());
      this.field.addEventListener("focus", () => { if (this.film) this.point(this.row ?? 0, this.column ?? 0, true); });
      this.field.addEventListener("keydown", (e) => this.onKey(e));
      new ResizeObserver(() => this.paint()).observe(this.field);
      const again = new MutationObserver(() => this.paint());
      again.observe(document.body, { attributes: true, attributeFilter: ["class"] });
      again.observe(this.board.root, { attributes: true, attributeFilter: ["data-only"] });
    }

    draw(lane, k) {
      const film = filmOf(lane);
      this.node.hidden = !film && lane.meta.state === "error"; /* then the message says all */
      this.ghost.hidden = this.node.hidden;
      if (!film) return;
      const same = this.film === film && this.at === k && film.k === k;
      this.film = film.to(k);
      this.counts = film.counts;
      if (same && this.seen === lane.meta.state) return;
      Object.assign(this, { at: k, lane, seen: lane.meta.state });
      const step = k ? lane.steps[k - 1] : null;
      this.loose = new Map((step?.marks || []).filter((m) => LOOSE.has(m[2]) && !film.known(m[0])).map((m) => [m[0], m]));
      const { h: rows, w: columns } = film.map;
      set(this.size, `tokens, ${rows}×${columns}`);
      set(this.caption, `picture, ${film.side}×${film.side}`);
      this.picture.classList.toggle("is-fine", film.side > FINE);
      const cells = film.grid.h * film.grid.w, done = k ? lane.steps[k - 1].units : 0;
      this.picture.setAttribute("aria-label", `Picture of lane ${this.index + 1}, ${lane.meta.name}: ${done} of ${cells - film.given.size} cells painted after ${k} steps. Asked for: ${this.board.race.value.prompt}`);
      this.field.setAttribute("aria-label", `Tokens of lane ${this.index + 1}, ${rows} rows of ${columns}; arrow keys move, the card tells what happened to a cell`);
      this.paint();
      this.drawStrip();
      this.drawStep(step, k);
    }

    retint() { this.paint(); this.at = -1; }

    /* ---- canvases ---- */
    paint() {
      const { film } = this, wide = this.field.clientWidth;
      if (!film || !wide) return;
      const style = getComputedStyle(this.board.root), get = (name) => style.getPropertyValue(name).trim();
      this.colors = Object.fromEntries([...Object.keys(FATES).map((f) => [f, get(`--dl-${f}`)]), ["given", get("--dl-quiet")]]);
      const { h: rows, w: columns } = film.map, size = Math.max(4, Math.floor((wide * devicePixelRatio) / columns));
      this.grid.width = columns * size;
      this.grid.height = rows * size;
      const pen = this.grid.getContext("2d");
      for (let i = 0; i < rows * columns; i++) this.paintCell(pen, film, i, (i % columns) * size, Math.floor(i / columns) * size, size);
      this.paintPicture(film, Math.max(4, Math.floor((wide * devicePixelRatio) / film.side)));
      if (!this.cursor.hidden) this.placeCursor();
    }

    paintCell(pen, film, i, x, y, size) {
      const slot = film.map.start + i, cell = film.cells.get(slot), loose = this.loose?.get(slot);
      const fate = cell ? cell.mark[2] : !film.maps.length && film.given.has(slot) ? "given" : loose ? loose[2] : "open";
      const { paint } = this.board, only = this.board.root.dataset.only;
      pen.fade = pen.globalAlpha = 1;
      if (paint !== "origin" && cell) {
        const share = paint === "step" ? cell.step / Math.max(1, this.lane.steps.length - 1) : confidence(cell.mark);
        if (share !== null && share !== undefined) { pen.fillStyle = heat(share); pen.fillRect(x, y, size, size); return; }
      }
      if (only && only !== fate) return;
      drawCell(pen, fate, x, y, size - 0.5, this.colors[fate]);
    }

    /* The picture, and on its open cells the guesses of the last step as small squares. */
    paintPicture(film, size) {
      this.picture.width = this.picture.height = film.side * size;
      const pen = this.picture.getContext("2d"), { h: rows, w: columns } = film.map, cell = (film.side * size) / columns;
      pen.imageSmoothingEnabled = false;
      pen.drawImage(film.canvas(), 0, 0, this.picture.width, this.picture.height);
      for (const [slot, mark] of this.loose || []) {
        const i = slot - film.map.start;
        const color = colourOf(mark[1], this.lane);
        if (i < 0 || i >= rows * columns || !color) continue;
        pen.fillStyle = color;
        pen.globalAlpha = mark[2] === "guess" ? 0.75 : 0.4;
        const inset = cell * (mark[2] === "guess" ? 0.2 : 0.32);
        pen.fillRect((i % columns) * cell + inset, Math.floor(i / columns) * cell + inset, cell - 2 * inset, cell - 2 * inset);
      }
    }

    /* ---- below the pictures ---- */
    drawStrip() {
      const { maps } = this.film;
      this.strip.hidden = !maps.length;
      this.strip.replaceChildren(...maps.map((map) => {
        const author = map.refined ? "refiner" : "target", name = `${map.h}×${map.w}`;
        const seek = () => { const { race } = this.board; race.pause(); race.seek(this.lane.steps[map.step].clock); };
        return h("button", { type: "button", class: "dl-frame", "data-author": author, title: `after scale ${name}, by the ${author}`,
          "aria-label": `After scale ${name}, by the ${author}: go there`, onclick: seek }, this.film.canvas(map.rgb, true), h("span", {}, name));
      }));
    }

    drawStep(step, k) {
      const marks = (step?.marks || []).filter((m, i) => { m.at = i; return m[2] !== "erased" && (m[2] !== "bonus" || step.marks.length > 1); });
      const tree = marks.some((m) => m[6] !== null && m[6] !== undefined);
      const judged = marks.some((m) => m[2] !== "bonus");
      set(this.label, step ? step.note || (tree ? "tree" : judged ? "draft" : "one cell, no draft") : "");
      this.ghost.classList.toggle("is-empty", !marks.length);
      const rows = this.film.maps.length ? [] : tree ? branches(marks).slice(0, 4) : [marks];
      this.rows.replaceChildren(...rows.map((row) => h("div", {}, ...row.slice(0, MOST).map((mark) => this.swatch(mark, k - 1)),
        row.length > MOST ? h("span", { class: "dl-more" }, `${row.length - MOST} more`) : null)));
    }

    swatch(mark, step) {
      const node = h("span", { class: "dl-tok dl-swatch", "data-f": mark[2] });
      const color = colourOf(mark[1], this.lane);
      if (color) node.style.setProperty("--ink", color);
      node.dlab = { mark, step, lane: this.lane, where: this.where(mark[0]) };
      return node;
    }

    /* ---- one cell ---- */
    where(slot) {
      const { w: columns, start } = this.film.map, i = slot - start;
      return `row ${Math.floor(i / columns) + 1}, column ${(i % columns) + 1}`;
    }

    cellAt(event) {
      const box = this.field.getBoundingClientRect(), { h: rows, w: columns } = this.film?.map || { h: 1, w: 1 };
      const pick = (at, low, size, most) => Math.max(0, Math.min(most - 1, Math.floor(((at - low) / size) * most)));
      return { row: pick(event.clientY, box.top, box.height, rows), column: pick(event.clientX, box.left, box.width, columns) };
    }

    point(row, column, say = false) {
      if (!this.film) return;
      Object.assign(this, { row, column });
      const slot = this.film.map.start + row * this.film.map.w + column, cell = this.film.cells.get(slot);
      const mark = cell?.mark || this.loose?.get(slot), step = cell ? cell.step : this.at - 1;
      this.cursor.hidden = false;
      this.placeCursor();
      const given = !mark && !this.film.maps.length && this.film.given.has(slot);
      this.cursor.dlab = mark ? { mark, step, lane: this.lane, where: this.where(slot) } : null;
      this.board.card.hide();
      if (mark) this.board.card.show(this.cursor);
      if (say) set(this.told, `${this.where(slot)}: ${mark ? `${mark[1]}, ${(FATES[mark[2]] || [mark[2]])[0]} in step ${step + 1}` : given ? "given" : "open"}`);
    }

    placeCursor() {
      const { h: rows, w: columns } = this.film.map;
      Object.assign(this.cursor.style, { left: `${(100 * this.column) / columns}%`, top: `${(100 * this.row) / rows}%`,
        width: `${100 / columns}%`, height: `${100 / rows}%` });
    }

    leave() { this.cursor.hidden = true; this.board.card.hide(); }

    onKey(event) {
      const { h: rows, w: columns } = this.film?.map || { h: 1, w: 1 }, row = this.row ?? 0, column = this.column ?? 0;
      const to = { ArrowRight: [row, column + 1], ArrowLeft: [row, column - 1], ArrowDown: [row + 1, column], ArrowUp: [row - 1, column],
        Home: [row, 0], End: [row, columns - 1] }[event.key];
      if (!to) return;
      event.preventDefault();
      event.stopPropagation();
      this.point(Math.max(0, Math.min(rows - 1, to[0])), Math.max(0, Math.min(columns - 1, to[1])), true);
    }
  }

  /* The signs of a legend, in the colours of the page. */
  function drawSigns(root) {
    const style = getComputedStyle(root);
    for (const node of root.querySelectorAll("canvas[data-sign]")) {
      const pen = node.getContext("2d");
      pen.clearRect(0, 0, node.width, node.height);
      drawCell(pen, node.dataset.sign, 0, 0, node.width, style.getPropertyValue(`--dl-${node.dataset.sign}`).trim());
      pen.globalAlpha = 1;
    }
  }

  Object.assign(lab, { PictureBody, drawSigns });
})();
