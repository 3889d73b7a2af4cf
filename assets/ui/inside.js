/* Look inside: one lane, one step, and a menu of the views that this lane's trace can fill. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountInside) return;
  const { h, set, Card } = lab;

  const EVERY = 180; /* ms between two drawings while a race runs */
  const GAP = ["single", "rule", "optimum"];

  /* What the steps of a lane hold, found once a step. */
  lab.contents = (lane) => {
    const found = (lane.contents ??= { seen: 0, judged: false, marked: false, guessTree: false, tree: false, roles: new Set(), figures: new Set() });
    for (; found.seen < lane.steps.length; found.seen++) {
      const step = lane.steps[found.seen];
      found.judged ||= step.judged > 0;
      found.marked ||= step.marks.length > 0; /* forecasts have none */
      found.tree ||= step.judged > 0 && step.marks.some((m) => lab.known(m[6]));
      found.guessTree ||= !step.judged && step.marks.some((m) => m[2] === "guess" && lab.known(m[6]));
      for (const role of Object.keys(step.parts || {})) found.roles.add(role);
      for (const name of Object.keys(step.figures || {})) found.figures.add(name);
    }
    return found;
  };

  /* name: [title, whether a lane fills it, its class, figures it shows so that the plain plots can leave them out]. */
  const special = (first) => Object.fromEntries(Object.entries(lab.moreViews).filter(([, view]) => !!view.first === first));
  const VIEWS = {
    ...special(true),
    tree: { title: (c) => (c.tree ? "Draft tree" : "Draft"), fits: (c) => c.judged && c.marked, make: () => new lab.TreeView() },
    depth: { title: () => "By depth", fits: (c) => c.judged && c.marked, make: () => new lab.DepthView() },
    lengths: { title: () => "Draft lengths", fits: (c) => c.judged, make: () => new lab.LengthView() },
    gap: { title: () => "Gap to the best", fits: (c) => GAP.every((key) => c.figures.has(key)), make: () => new lab.GapView(), figures: (name) => GAP.includes(name) },
    calls: { title: () => "Calls in time", fits: (c) => c.roles.size > 0, make: () => new lab.CallsView() },
    ...special(false),
    figures: { title: () => "Figures", fits: (c) => plainFigures(c).length > 0, make: () => new lab.FigureView() },
  };

  /* Figures that no other view shows. */
  const plainFigures = (c) => [...c.figures].filter((name) => !name.startsWith("level ") && !Object.values(VIEWS).some((v) => v.figures?.(name)));

  class Inside {
    constructor(element, id) {
      this.race = lab.race(id);
      this.id = id;
      this.made = {};
      this.build(element);
      this.race.watch(() => this.later());
      new IntersectionObserver((entries) => { this.seen = entries.some((e) => e.isIntersecting); if (this.seen) this.later(); }, { rootMargin: "80px" }).observe(element);
      new ResizeObserver(() => this.later()).observe(element);
    }

    build(element) {
      this.lanes = h("div", { class: "dl-segment dl-in-lanes", role: "group", "aria-label": "Lane to look into" });
      this.menu = h("div", { class: "dl-segment dl-in-menu", role: "group", "aria-label": "View" });
      const button = (label, text, by) => h("button", { type: "button", class: "dl-button", "aria-label": label, title: label, onclick: () => this.step(by) }, text);
      this.place = h("output", { class: "dl-in-step" }, "");
      this.newest = h("button", { type: "button", class: "dl-button dl-in-newest", onclick: () => this.race.follow() }, "Newest");
      this.steps = h("div", { class: "dl-in-steps", role: "group", "aria-label": "Step of this lane" }, button("This lane's step before", "‹", -1), this.place, button("This lane's next step", "›", 1), this.newest);
      this.note = h("p", { class: "dl-in-note" });
      this.body = h("div", { class: "dl-in-body" });
      this.card = new Card(`${this.id}-inside-card`);
      this.root = h("section", { class: "dl-inside dl-board", "aria-label": "Look inside" },
        h("header", {}, h("h3", {}, "Look inside"), this.lanes, this.steps), this.menu, this.note, this.body, this.card.node);
      this.root.hidden = true;
      element.replaceChildren(this.root);
      for (const [event, f] of [["pointerover", (e) => this.card.show(e.target)], ["pointerleave", () => this.card.hide()], ["focusin", (e) => this.card.show(e.target)], ["focusout", () => this.card.hide()]]) this.body.addEventListener(event, f);
    }

    later() {
      if (this.timer) return;
      const wait = this.race.active || this.race.playing ? Math.max(0, EVERY - (performance.now() - (this.last || 0))) : 0;
      this.timer = setTimeout(() => requestAnimationFrame(() => { this.timer = 0; this.last = performance.now(); this.draw(); }), wait);
    }

    /* The lane that was chosen, else the one whose draft is worth a look: the first that drafts. */
    pick() {
      const { lanes } = this.race;
      if (this.chosen !== undefined && lanes[this.chosen]?.steps.length) return this.chosen;
      const trees = lanes.findIndex((l) => lab.contents(l).tree), drafts = lanes.findIndex((l) => lab.contents(l).judged);
      return Math.max(0, trees >= 0 ? trees : drafts >= 0 ? drafts : lanes.findIndex((l) => l.steps.length));
    }

    step(by) {
      const lane = this.race.lanes[this.index], k = Math.max(1, Math.min(lane.steps.length, this.race.at(lane) + by));
      this.seek(k);
    }

    seek(k) {
      const lane = this.race.lanes[this.index];
      this.race.pause();
      if (k >= lane.steps.length && this.race.following) return;
      this.race.seek(lane.steps[k - 1].clock);
    }

    draw() {
      const { race } = this;
      if (!race.value || !race.lanes.some((l) => l.steps.length)) { this.root.hidden = true; return; }
      this.root.hidden = false;
      if (this.run !== race.value.run_id) { this.run = race.value.run_id; this.drawn = ""; this.chosen = undefined; }
      if (!this.seen && (race.active || race.playing)) return;
      this.index = this.pick();
      const lane = race.lanes[this.index], contents = lab.contents(lane);
      const fitting = Object.keys(VIEWS).filter((name) => VIEWS[name].fits(contents, lane));
      const view = fitting.includes(this.view) ? this.view : fitting[0];
      let k = race.at(lane);
      if (race.following && view === "tree") while (k > 1 && !lane.steps[k - 1].judged) k--; /* a last step without a draft has no tree */
      const width = Math.floor(this.body.clientWidth);
      const key = [this.run, this.index, k, view, fitting.length, width, race.lanes.length, contents.figures.size].join("|");
      if (key === this.drawn || width < 60) return;
      this.drawn = key;
      this.drawMenus(fitting, view, contents);
      set(this.place, `step ${k} of ${lane.steps.length}`);
      this.newest.disabled = race.following;
      const step = k ? lane.steps[k - 1] : null;
      set(this.note, step?.note || "");
      this.note.hidden = !step?.note;
      if (!view || !step) { this.body.replaceChildren(h("p", { class: "dl-in-caption" }, view ? "Nothing has happened at this moment yet." : "This lane only draws: one call, one token.")); return; }
      this.made[view] ??= VIEWS[view].make();
      const shown = this.made[view];
      if (this.body.firstChild !== shown.root) this.body.replaceChildren(shown.root);
      shown.draw({ lane, k, step, width, race, index: this.index, color: `var(--dl-lane-${(this.index % 4) + 1})`, card: this.card, names: plainFigures(contents),
        seek: (to) => this.seek(to), again: () => { this.drawn = ""; this.later(); } });
    }

    drawMenus(fitting, view, contents) {
      const lanes = this.race.lanes.map((lane, i) => `${i}${lane.meta.name}${lane.steps.length > 0}`).join("|");
      if (this.lanesKey !== lanes) {
        this.lanesKey = lanes;
        this.lanes.replaceChildren(...this.race.lanes.map((lane, i) => h("button", { type: "button", "data-lane": String(i), disabled: !lane.steps.length, title: lane.meta.name,
          onclick: () => { this.chosen = i; this.later(); } }, h("span", { class: "dl-marker", style: `--lane:var(--dl-lane-${(i % 4) + 1})`, "aria-hidden": "true" }, lab.SIGNS[i % 4]), h("span", { class: "dl-in-name" }, lane.meta.name))));
      }
      for (const b of this.lanes.children) b.setAttribute("aria-pressed", String(Number(b.dataset.lane) === this.index));
      const menu = fitting.map((name) => `${name}${VIEWS[name].title(contents)}`).join("|");
      if (this.menuKey !== menu) {
        this.menuKey = menu;
        this.menu.replaceChildren(...fitting.map((name) => h("button", { type: "button", "data-view": name, onclick: () => { this.view = name; this.drawn = ""; this.later(); } }, VIEWS[name].title(contents))));
      }
      for (const b of this.menu.children) b.setAttribute("aria-pressed", String(b.dataset.view === view));
    }
  }

  lab.mountInside = (element, props) => new Inside(element, props.race || "text");
})();
