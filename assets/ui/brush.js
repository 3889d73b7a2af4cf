/* What a prompt was understood to say, and the brush: a picture of which some cells are to be painted again. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountBrush) return;
  const { h, set, visible, filmOf, bytes } = lab;

  /* In parts: a call takes only so many arguments. */
  const pack = (data) => btoa(Array.from({ length: Math.ceil(data.length / 4096) }, (_, i) => String.fromCharCode(...data.subarray(4096 * i, 4096 * (i + 1)))).join(""));

  /* What was held on this page, by race: a view that is built anew goes on from there. */
  const memory = new Map();

  class Brush {
    constructor(element, props, id) {
      Object.assign(this, { props, race: lab.race(id), size: 2, row: 0, column: 0 });
      this.held = memory.get(id) ?? { sent: "", seen: new Set([""]) };
      memory.set(id, this.held);
      this.canvas = h("canvas", { class: "dl-picture", role: "application", tabindex: "0", "aria-roledescription": "brush" });
      this.cursor = h("span", { class: "dl-cursor", hidden: true, "aria-hidden": "true" });
      this.field = h("div", { class: "dl-brush-field", hidden: true }, this.canvas, this.cursor);
      this.menu = h("select", { "aria-label": "Take the picture of a lane", onchange: () => this.takeLane() });
      const tool = (name, text, action, title) => h("button", { type: "button", class: "dl-button", "data-tool": name, title, onclick: action }, text);
      this.sizes = [1, 2, 4].map((n) => tool(`size-${n}`, `${n}×${n}`, () => this.setSize(n), `Brush of ${n} by ${n} cells`));
      this.tools = h("div", { class: "dl-brush-tools", hidden: true }, ...this.sizes,
        this.eraser = tool("erase", "Erase", () => { this.erasing = !this.erasing; this.draw(); }, "Take cells out of the mask"),
        tool("all", "Upper half", () => this.region((y) => y < this.cells / 2), "Mask the upper half"),
        tool("low", "Lower half", () => this.region((y) => y >= this.cells / 2), "Mask the lower half: what a painter that goes row by row can do too"),
        tool("clear", "Clear", () => this.region(() => false), "Empty the mask"), tool("remove", "Remove picture", () => this.remove(), "Paint whole pictures again"));
      this.told = h("p", { class: "dl-brush-told", role: "status" });
      element.replaceChildren(h("div", { class: "dl-brush" }, this.menu, this.field, this.tools, this.told));
      this.listen();
      this.race.watch(() => this.fill());
      this.fill();
      this.read(this.held.sent);
      this.load(props.value);
    }

    listen() {
      this.canvas.addEventListener("pointerdown", (e) => { this.canvas.setPointerCapture(e.pointerId); this.painting = true; this.stroke(e); });
      this.canvas.addEventListener("pointermove", (e) => { if (this.painting) this.stroke(e); });
      for (const end of ["pointerup", "pointercancel"]) this.canvas.addEventListener(end, () => { if (this.painting) { this.painting = false; this.send(); } });
      this.canvas.addEventListener("keydown", (e) => this.onKey(e));
      this.canvas.addEventListener("focus", () => { this.cursor.hidden = false; this.place(); });
      this.canvas.addEventListener("blur", () => { this.cursor.hidden = true; });
      new ResizeObserver(() => this.draw()).observe(this.field);
    }

    /* A value from Python: a picture that was uploaded, or that a link or a trace holds, or none. Each is taken once:
       whenever anything on the page unfolds, Gradio hands out again what a component began with, and Run would send it. */
    load(value) {
      const { held } = this;
      if (value === held.sent) return;
      if (held.seen.has(value ?? "")) {
        this.props.value = held.sent;
        return;
      }
      held.seen.add(value);
      held.sent = value;
      this.read(value);
    }

    /* Show what a value holds; without a picture there is nothing to show. */
    read(value) {
      this.picture = null;
      try {
        const told = value ? JSON.parse(value) : null;
        if (told?.picture) Object.assign(this, { side: told.side, cells: told.cells ?? told.side, picture: bytes(told.picture), mask: bytes(told.mask) });
      } catch { this.picture = null; }
      this.row = this.column = 0;
      this.draw();
    }

    /* Tell Python, which reads the value with the next Run. */
    send() {
      const { side, cells, held } = this;
      held.sent = this.picture ? JSON.stringify({ side, cells, picture: pack(this.picture), mask: pack(this.mask) }) : "";
      held.seen.add(held.sent);
      this.props.value = held.sent;
      this.draw();
    }

    fill() {
      const lanes = this.race.lanes.map((lane, i) => [lane, i]).filter(([lane]) => filmOf(lane) && lane.steps.length);
      const key = lanes.map(([lane, i]) => `${i}${lane.meta.name}`).join("|");
      if (key === this.key) return;
      this.key = key;
      this.menu.replaceChildren(h("option", { value: "" }, "Take the picture of a lane …"),
        ...lanes.map(([lane, i]) => h("option", { value: String(i) }, `Lane ${i + 1} · ${lane.meta.name}`)));
    }

    takeLane() {
      const lane = this.race.lanes[Number(this.menu.value)];
      this.menu.value = "";
      if (!lane) return;
      const film = filmOf(lane).to(lane.steps.length);
      Object.assign(this, { side: film.side, cells: film.grid.w, picture: film.rgb.slice(), mask: new Uint8Array(film.grid.h * film.grid.w), row: 0, column: 0 });
      film.to(this.race.at(lane));
      this.race.changed("time");
      this.send();
    }

    remove() { this.picture = null; this.send(); }
    setSize(n) { this.size = n; this.erasing = false; this.draw(); }
    region(inside) { for (let i = 0; i < this.mask.length; i++) this.mask[i] = inside(Math.floor(i / this.cells)) ? 1 : 0; this.send(); }

    /* Paint or erase a square of cells around one. */
    dab(row, column, value) {
      const from = -Math.floor((this.size - 1) / 2);
      for (let y = row + from; y < row + from + this.size; y++) for (let x = column + from; x < column + from + this.size; x++) {
        if (y >= 0 && x >= 0 && y < this.cells && x < this.cells) this.mask[y * this.cells + x] = value;
      }
    }

    stroke(event) {
      const box = this.canvas.getBoundingClientRect(), pick = (at, low, size) => Math.max(0, Math.min(this.cells - 1, Math.floor(((at - low) / size) * this.cells)));
      this.dab(pick(event.clientY, box.top, box.height), pick(event.clientX, box.left, box.width), this.erasing ? 0 : 1);
      this.draw();
    }

    onKey(event) {
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!move && event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      if (move) {
        this.row = Math.max(0, Math.min(this.cells - 1, this.row + move[0]));
        this.column = Math.max(0, Math.min(this.cells - 1, this.column + move[1]));
        this.place();
        set(this.told, `row ${this.row + 1}, column ${this.column + 1}: ${this.mask[this.row * this.cells + this.column] ? "to be painted again" : "kept"}`);
        return;
      }
      this.dab(this.row, this.column, this.mask[this.row * this.cells + this.column] ? 0 : 1);
      this.send();
    }

    place() {
      const one = 100 / (this.cells || 1);
      Object.assign(this.cursor.style, { left: `${one * this.column}%`, top: `${one * this.row}%`, width: `${one}%`, height: `${one}%` });
    }

    draw() {
      const on = !!this.picture, open = on ? this.mask.reduce((a, b) => a + b, 0) : 0;
      this.field.hidden = this.tools.hidden = !on;
      for (const [i, button] of this.sizes.entries()) button.setAttribute("aria-pressed", String(this.size === [1, 2, 4][i] && !this.erasing));
      this.eraser.setAttribute("aria-pressed", String(!!this.erasing));
      set(this.told, !on ? "Take the last picture of a lane or upload one, then brush over what is to be painted again."
        : open ? `Run paints ${open} of ${this.mask.length} cells again; the others stay.` : "Brush over the cells that are to be painted again.");
      if (!on || !this.field.clientWidth) return;
      this.canvas.setAttribute("aria-label", `Picture to paint over, ${open} cells marked. Arrow keys move, Space marks.`);
      const size = Math.max(6, Math.floor((this.field.clientWidth * devicePixelRatio) / this.cells)), pen = this.canvas.getContext("2d");
      this.canvas.width = this.canvas.height = size * this.cells;
      pen.imageSmoothingEnabled = false;
      pen.drawImage(this.drawn(), 0, 0, this.canvas.width, this.canvas.height);
      pen.fillStyle = "rgb(255 255 255 / .72)";
      pen.strokeStyle = "rgb(176 80 138)";
      pen.lineWidth = Math.max(1.5, size / 10);
      for (const [i, marked] of this.mask.entries()) {
        if (!marked) continue;
        const x = (i % this.cells) * size, y = Math.floor(i / this.cells) * size;
        pen.fillRect(x, y, size, size);
        pen.beginPath();
        pen.moveTo(x + size * 0.2, y + size * 0.8);
        pen.lineTo(x + size * 0.8, y + size * 0.2);
        pen.stroke();
      }
    }

    /* The picture in its own size. */
    drawn() {
      const { side, picture } = this, node = h("canvas", { width: side, height: side }), data = new ImageData(side, side);
      for (let i = 0; i < side * side; i++) data.data.set([picture[3 * i], picture[3 * i + 1], picture[3 * i + 2], 255], 4 * i);
      node.getContext("2d").putImageData(data, 0, 0);
      return node;
    }
  }

  /* Chips for what was understood; words that mean nothing here are named. */
  function drawReading(root, value) {
    if (!value || typeof value !== "object") return;
    const chips = (value.chips || []).map(({ title, value: said, tint }) => {
      const dot = tint ? h("i", { "aria-hidden": "true" }) : null;
      if (dot) dot.style.background = `#${tint}`;
      return h("li", {}, dot, h("span", {}, `${title} `), h("b", {}, said));
    });
    const left = value.ignored?.length ? h("p", {}, `Not painted: ${visible(value.ignored.join(", "))}.`) : null;
    root.replaceChildren(...(value.error ? [h("p", { class: "is-wrong", role: "status" }, visible(value.error))]
      : [h("ul", { "aria-label": "What was understood" }, ...chips), value.note ? h("p", {}, value.note) : null, left].filter(Boolean)));
  }

  lab.mountBrush = (element, props, watch) => {
    const brush = new Brush(element, props, props.race || "image");
    watch("value", () => brush.load(props.value));
  };
  lab.mountReading = (element, props, watch) => {
    const root = h("div", { class: "dl-reading" });
    element.replaceChildren(root);
    drawReading(root, props.value);
    watch("value", () => drawReading(root, props.value));
  };
})();
