/* What a prompt was understood to say, and the brush: a picture of which some cells are to be painted again. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountBrush) return;
  const { h, set, visible, filmOf, bytes } = lab;

  const pack = (data) => btoa(String.fromCharCode(...data));

  class Brush {
    constructor(element, props, id) {
      Object.assign(this, { props, race: lab.race(id), size: 2, row: 0, column: 0, own: new Set([""]) });
      this.canvas = h("canvas", { class: "dl-picture", role: "application", tabindex: "0", "aria-roledescription": "brush" });
      this.cursor = h("span", { class: "dl-cursor", hidden: true, "aria-hidden": "true" });
      this.field = h("div", { class: "dl-brush-field", hidden: true }, this.canvas, this.cursor);
      this.menu = h("select", { "aria-label": "Take the picture of a lane", onchange: () => this.takeLane() });
      const tool = (name, text, action, title) => h("button", { type: "button", class: "dl-button", "data-tool": name, title, onclick: action }, text);
      this.sizes = [1, 2, 4].map((n) => tool(`size-${n}`, `${n}×${n}`, () => this.setSize(n), `Brush of ${n} by ${n} cells`));
      this.tools = h("div", { class: "dl-brush-tools", hidden: true }, ...this.sizes,
        this.eraser = tool("erase", "Erase", () => { this.erasing = !this.erasing; this.draw(); }, "Take cells out of the mask"),
        tool("all", "Upper half", () => this.region((y) => y < this.side / 2), "Mask the upper half"),
        tool("low", "Lower half", () => this.region((y) => y >= this.side / 2), "Mask the lower half: what a painter that goes row by row can do too"),
        tool("clear", "Clear", () => this.region(() => false), "Empty the mask"), tool("remove", "Remove picture", () => this.remove(), "Paint whole pictures again"));
      this.told = h("p", { class: "dl-brush-told", role: "status" });
      element.replaceChildren(h("div", { class: "dl-brush" }, this.menu, this.field, this.tools, this.told));
      this.listen();
      this.race.watch(() => this.fill());
      this.fill();
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

    /* A value from Python: a picture that was uploaded, or that a link or a trace holds; "null" is none. What was once
       sent from here may come back late, as may the value that the page began with: neither undoes a newer picture. */
    load(value) {
      if (value === this.sent || this.own.has(value ?? "")) return;
      this.sent = value;
      this.picture = null;
      try {
        if (value) {
          const held = JSON.parse(value);
          if (held) Object.assign(this, { side: held.side, picture: bytes(held.picture), mask: bytes(held.mask) });
        }
      } catch { this.picture = null; }
      this.draw();
    }

    /* Tell Python, which reads the value with the next Run. */
    send() {
      this.sent = this.picture ? JSON.stringify({ side: this.side, picture: pack(this.picture), mask: pack(this.mask) }) : "";
      this.own.add(this.sent);
      this.props.value = this.sent;
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
      Object.assign(this, { side: film.side, picture: film.rgb.slice(), mask: new Uint8Array(film.side * film.side) });
      film.to(this.race.at(lane));
      this.race.changed("time");
      this.send();
    }

    remove() { this.picture = null; this.send(); }
    setSize(n) { this.size = n; this.erasing = false; this.draw(); }
    region(inside) { for (let i = 0; i < this.mask.length; i++) this.mask[i] = inside(Math.floor(i / this.side)) ? 1 : 0; this.send(); }

    /* Paint or erase a square of cells around one. */
    dab(row, column, value) {
      const from = -Math.floor((this.size - 1) / 2);
      for (let y = row + from; y < row + from + this.size; y++) for (let x = column + from; x < column + from + this.size; x++) {
        if (y >= 0 && x >= 0 && y < this.side && x < this.side) this.mask[y * this.side + x] = value;
      }
    }

    stroke(event) {
      const box = this.canvas.getBoundingClientRect(), pick = (at, low, size) => Math.max(0, Math.min(this.side - 1, Math.floor(((at - low) / size) * this.side)));
      this.dab(pick(event.clientY, box.top, box.height), pick(event.clientX, box.left, box.width), this.erasing ? 0 : 1);
      this.draw();
    }

    onKey(event) {
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!move && event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      event.stopPropagation();
      if (move) {
        this.row = Math.max(0, Math.min(this.side - 1, this.row + move[0]));
        this.column = Math.max(0, Math.min(this.side - 1, this.column + move[1]));
        this.place();
        set(this.told, `row ${this.row + 1}, column ${this.column + 1}: ${this.mask[this.row * this.side + this.column] ? "to be painted again" : "kept"}`);
        return;
      }
      this.dab(this.row, this.column, this.mask[this.row * this.side + this.column] ? 0 : 1);
      this.send();
    }

    place() {
      const one = 100 / (this.side || 1);
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
      const size = Math.max(6, Math.floor((this.field.clientWidth * devicePixelRatio) / this.side)), pen = this.canvas.getContext("2d");
      this.canvas.width = this.canvas.height = size * this.side;
      for (let i = 0; i < this.side * this.side; i++) {
        const x = (i % this.side) * size, y = Math.floor(i / this.side) * size;
        pen.fillStyle = `rgb(${this.picture.slice(3 * i, 3 * i + 3).join(",")})`;
        pen.fillRect(x, y, size, size);
        if (!this.mask[i]) continue;
        pen.fillStyle = "rgb(255 255 255 / .72)";
        pen.fillRect(x, y, size, size);
        pen.strokeStyle = "rgb(176 80 138)";
        pen.lineWidth = Math.max(1.5, size / 10);
        pen.beginPath();
        pen.moveTo(x + size * 0.2, y + size * 0.8);
        pen.lineTo(x + size * 0.8, y + size * 0.2);
        pen.stroke();
      }
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
