/* Pictures of a lane at any moment, rebuilt from its steps: pixels, and what happened to every cell. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.filmOf) return;
  const { h } = lab;

  const RECORD = 5; /* bytes of a changed pixel: its number, low byte first, then red, green, blue */
  const COMMITS = new Set(["kept", "fixed", "bonus"]);
  const bytes = (packed) => Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));

  /* The picture after the first k steps of a lane; `to` moves it there. What the browser gets is described in films.py. */
  class Film {
    constructor(lane) {
      this.lane = lane;
      const { grid, side, start, given } = lane.meta.picture;
      Object.assign(this, { grid: { h: grid[0], w: grid[1], start: 0 }, side, start, given: new Set(given) });
      this.reset();
    }

    reset() {
      this.k = 0;
      this.rgb = new Uint8Array(3 * this.side * this.side).fill(128);
      this.cells = new Map(); /* by slot: {mark, step} of what stands there */
      this.maps = []; /* of a model of scales: {h, w, start, rgb, step, refined} */
      this.counts = {};
      this.change(this.start);
    }

    to(k) {
      if (k < this.k) this.reset();
      for (; this.k < Math.min(k, this.lane.steps.length); this.k++) this.take(this.lane.steps[this.k], this.k);
      return this;
    }

    take(step, index) {
      const figures = step.figures || {};
      if (figures.scale > this.maps.length && figures.height) {
        const last = this.maps.at(-1), start = last ? last.start + last.h * last.w : 0;
        this.maps.push({ h: figures.height, w: figures.width, start, refined: !!figures.refined });
      }
      for (const mark of step.marks) {
        const [slot, , fate] = mark, old = this.cells.get(slot);
        if (fate === "erased" || COMMITS.has(fate)) {
          if (old) this.counts[old.mark[2]] -= 1;
          this.cells.delete(slot);
        }
        if (COMMITS.has(fate)) {
          this.cells.set(slot, { mark, step: index, again: old?.again || fate === "fixed" });
          this.counts[fate] = (this.counts[fate] || 0) + 1;
        }
      }
      if (step.frame) this.change(step.frame);
      const map = this.maps.at(-1);
      if (map) Object.assign(map, { rgb: this.rgb.slice(), step: index });
    }

    change(frame) {
      if (!frame) return;
      const data = bytes(frame.slice(1));
      if (frame[0] === "f") { this.rgb.set(data.subarray(0, this.rgb.length)); return; }
      for (let i = 0; i + RECORD <= data.length; i += RECORD) {
        const at = 3 * (data[i] | (data[i + 1] << 8));
        if (at < this.rgb.length) this.rgb.set(data.subarray(i + 2, i + RECORD), at);
      }
    }

    /* The token map that is shown: the last one of a model of scales, else the only one. */
    get map() { return this.maps.at(-1) || this.grid; }
    get painted() { return !!this.cells.size || !!this.given.size; }
    known(slot) { return this.cells.has(slot) || (!this.maps.length && this.given.has(slot)); }

    /* Whether a pixel shows anything: where a map has a token, or a coarser one stands behind it. */
    shows(x, y) {
      if (this.maps.length) return true;
      const { h: rows, w: columns } = this.grid;
      return this.known(Math.floor((y * rows) / this.side) * columns + Math.floor((x * columns) / this.side));
    }

    /* Pixels with their transparency, for a canvas of the picture's own size. */
    image(rgb = this.rgb, whole = false) {
      const data = new ImageData(this.side, this.side);
      for (let i = 0, y = 0; y < this.side; y++) for (let x = 0; x < this.side; x++, i++) {
        data.data.set(rgb.subarray(3 * i, 3 * i + 3), 4 * i);
        data.data[4 * i + 3] = whole || this.shows(x, y) ? 255 : 0;
      }
      return data;
    }

    canvas(rgb, whole) {
      const node = h("canvas", { width: this.side, height: this.side });
      node.getContext("2d").putImageData(this.image(rgb, whole), 0, 0);
      return node;
    }
  }

  /* The film of a lane, made once. null where it paints nothing. */
  const filmOf = (lane) => (lane.meta?.picture ? (lane.film ??= new Film(lane)) : null);

  /* Pixels in which two pictures of one size differ. */
  function differing(a, b) {
    let count = 0;
    for (let i = 0; i < a.length; i += 3) if (a[i] !== b[i] || a[i + 1] !== b[i + 1] || a[i + 2] !== b[i + 2]) count += 1;
    return count;
  }

  Object.assign(lab, { filmOf, differing, bytes });
})();
