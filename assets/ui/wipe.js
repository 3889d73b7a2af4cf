/* Two pictures of a race in one frame: the divider between them moves with the pointer and the arrow keys. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountWipe) return;
  const { h, set, filmOf, differing } = lab;

  class Wipe {
    constructor(element, id) {
      this.race = lab.race(id);
      this.lanes = [0, 1];
      this.canvas = h("canvas", { class: "dl-picture", role: "img" });
      this.slider = h("input", { type: "range", min: "0", max: "1", step: "0.01", value: "0.5", "aria-label": "Divider: how much of the left picture is shown" });
      this.frame = h("div", { class: "dl-wipe-frame" }, this.canvas, this.bar = h("i", { "aria-hidden": "true" }), this.slider);
      this.menus = [0, 1].map((side) => h("select", { "aria-label": side ? "Right picture" : "Left picture",
        onchange: (e) => { this.lanes[side] = Number(e.target.value); this.draw(); } }));
      this.marks = h("input", { type: "checkbox", onchange: () => this.draw() });
      this.told = h("p", { class: "dl-wipe-told", role: "status" });
      this.root = h("section", { class: "dl-wipe", "aria-label": "Compare two pictures", hidden: true },
        this.frame, h("div", { class: "dl-wipe-side" }, h("h3", {}, "Compare two pictures"),
          h("div", { class: "dl-wipe-menus" }, this.menus[0], h("span", { "aria-hidden": "true" }, "|"), this.menus[1]),
          this.told, h("label", {}, this.marks, " outline the pixels that differ"),
          h("p", { class: "dl-wipe-note" }, "Drag the divider, or use the arrow keys on it. Strategies that give every place noise of its own paint the same pixel wherever their laws agree.")));
      element.replaceChildren(this.root);
      this.slider.addEventListener("input", () => this.draw());
      this.frame.addEventListener("pointerdown", (e) => { this.frame.setPointerCapture(e.pointerId); this.drag(e); });
      this.frame.addEventListener("pointermove", (e) => { if (e.buttons) this.drag(e); });
      this.race.watch(() => this.draw());
      new ResizeObserver(() => this.draw()).observe(this.frame);
      new MutationObserver(() => this.draw()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    }

    drag(event) {
      const box = this.canvas.getBoundingClientRect();
      this.slider.value = String(Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
      this.slider.focus({ preventScroll: true });
      this.draw();
    }

    draw() {
      const lanes = this.race.lanes.filter((lane) => filmOf(lane) && lane.steps.length);
      this.root.hidden = lanes.length < 2;
      if (this.root.hidden) return;
      this.fill(lanes);
      const shown = this.lanes.map((i) => this.race.lanes[i]), films = shown.map((lane) => filmOf(lane).to(this.race.at(lane)));
      const [left, right] = films, wide = this.frame.clientWidth, at = Number(this.slider.value);
      this.bar.style.left = `${100 * at}%`;
      if (left.side !== right.side) { set(this.told, "These pictures have different sizes."); return; }
      const same = !differing(left.rgb, right.rgb), count = differing(left.rgb, right.rgb), all = left.side * left.side;
      const told = same ? `All ${all} pixels are the same.` : `${count} of ${all} pixels differ.`;
      set(this.told, told);
      this.canvas.setAttribute("aria-label", `${shown[0].meta.name} left of the divider, ${shown[1].meta.name} right of it. ${told}`);
      this.slider.setAttribute("aria-valuetext", `${Math.round(100 * at)} % ${shown[0].meta.name}`);
      this.canvas.classList.toggle("is-fine", left.side > 32);
      if (wide) this.paint(left, right, at, Math.max(4, Math.floor((wide * devicePixelRatio) / left.side)));
    }

    paint(left, right, at, size) {
      const { canvas } = this, wide = (canvas.width = canvas.height = left.side * size), pen = canvas.getContext("2d");
      pen.imageSmoothingEnabled = false;
      const cut = Math.round(at * wide);
      for (const [film, from, to] of [[left, 0, cut], [right, cut, wide]]) {
        pen.save();
        pen.beginPath();
        pen.rect(from, 0, to - from, wide);
        pen.clip();
        pen.drawImage(film.canvas(), 0, 0, wide, wide);
        pen.restore();
      }
      if (!this.marks.checked) return;
      for (let i = 0; i < left.side * left.side; i++) {
        if (!differing(left.rgb.subarray(3 * i, 3 * i + 3), right.rgb.subarray(3 * i, 3 * i + 3))) continue;
        const x = (i % left.side) * size, y = Math.floor(i / left.side) * size, line = Math.max(1, size / 9);
        for (const [color, grow] of [["#fff", 0.5], ["#000", 1.5]]) {
          pen.strokeStyle = color;
          pen.lineWidth = line;
          pen.strokeRect(x + grow * line, y + grow * line, size - 2 * grow * line, size - 2 * grow * line);
        }
      }
    }

    /* The menus hold the lanes that have a picture; a new race starts with its first and its last one. */
    fill(lanes) {
      const key = [this.race.value.run_id, ...lanes.map((lane) => lane.meta.name)].join("|");
      if (key === this.key) return;
      const index = lanes.map((lane) => this.race.lanes.indexOf(lane));
      if (!this.key?.startsWith(`${this.race.value.run_id}|`) || !this.lanes.every((i) => index.includes(i))) this.lanes = [index[0], index.at(-1)];
      this.key = key;
      this.menus.forEach((menu, side) => {
        menu.replaceChildren(...index.map((i) => h("option", { value: String(i) }, `${i + 1} · ${this.race.lanes[i].meta.name}`)));
        menu.value = String(this.lanes[side]);
      });
    }
  }

  lab.mountWipe = (element, props) => new Wipe(element, props.race || "image");
})();
