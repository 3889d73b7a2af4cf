/* LaneBoard: the lanes of a race side by side, the token card, the legend and the replay bar. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountBoard) return;
  const { h, set, visible, number, times, percent, chance, FATES, Card } = lab;

  const STATES = { queued: "queued", loading: "loading", running: "running", stopped: "stopped", done: "done", error: "error" };
  const PRESS = { origin: "what happened", step: "when it was written", confidence: "the target's probability at temperature 1" };
  /* By what races write, one of it: its short name, all of it together, what lanes do, what they are asked. */
  const KINDS = {
    token: { word: "tok", whole: "text", does: "answers the same prompt", asked: "Prompt", body: () => lab.TextBody },
    cell: { word: "cells", whole: "picture", does: "paints the same prompt", asked: "Prompt", body: () => lab.PictureBody },
    value: { word: "values", whole: "forecast", does: "continues the same series", asked: "Series", body: () => lab.FanBody },
  };
  /* What a fan chart is made of: each can be hidden. */
  const LAYERS = { bands: "50, 80 and 90 % bands", paths: "some of the sample paths, the same noise in every lane", truth: "what really came then", refused: "drafts that the target refused" };

  class Board {
    constructor(element, id, unit) {
      this.race = lab.race(id);
      this.unit = unit;
      this.kind = KINDS[unit];
      this.word = this.kind.word;
      this.whole = this.kind.whole;
      this.id = id;
      this.paint = "origin";
      this.columns = [];
      this.said = 0;
      this.build(element);
      this.race.watch((what) => this.draw(what));
      const signs = () => { if (this.unit !== "token") lab.drawSigns(this.root); };
      new MutationObserver(signs).observe(document.body, { attributes: true, attributeFilter: ["class"] });
      signs();
    }

    build(element) {
      this.root = h("section", { class: "dl-board", "aria-label": "Race", "data-unit": this.unit });
      this.notice = h("div", { class: "dl-notice", hidden: true });
      this.ratio = this.ratioControl();
      this.verdict = h("p", { class: "dl-verdict" });
      this.live = h("div", { class: "dl-sr", role: "status", "aria-live": "polite" });
      this.lanes = h("div", { class: "dl-lanes" });
      this.card = new Card(`${this.id}-card`);
      this.lanes.append(h("p", { class: "dl-bare" }, `Choose strategies and press Run: every lane ${this.kind.does}, and every ${this.unit} shows how it came about.`));
      this.root.append(this.notice, this.toolbar(), this.lanes, this.replay(), this.card.node, this.live);
      element.replaceChildren(this.root);
      this.lanes.addEventListener("pointerover", (e) => this.card.show(e.target));
      this.lanes.addEventListener("pointerleave", () => this.card.hide());
      this.lanes.addEventListener("focusin", (e) => this.card.show(e.target));
      this.lanes.addEventListener("focusout", () => this.card.hide());
    }

    toolbar() {
      this.legend = h("div", { class: "dl-legend", role: "group", "aria-label": "Legend: press to single out" });
      this.keys = {};
      for (const [fate, [name, meaning]] of Object.entries(FATES)) {
        const count = h("span", { class: "dl-count" }, "0");
        if ((fate === "erased" && this.unit !== "cell") || (fate === "guess" && this.unit === "value")) continue;
        const sample = this.unit === "token" ? h("span", { class: "dl-tok", "data-f": fate, "aria-hidden": "true" }, "ab") : h("canvas", { width: 28, height: 28, "data-sign": fate, "aria-hidden": "true" });
        const key = h("button", { type: "button", class: "dl-key", title: meaning, "aria-pressed": "false",
          onclick: () => this.single(key.getAttribute("aria-pressed") === "true" ? "" : fate),
          onpointerenter: (e) => { if (e.pointerType === "mouse") this.root.dataset.only = fate; },
          onpointerleave: () => this.single(this.chosen || "") }, sample, name, count);
        this.keys[fate] = { key, count };
        this.legend.append(key);
      }
      this.scale = h("div", { class: "dl-scale", hidden: true }, h("span", {}), h("i", {}), h("span", {}));
      if (this.unit === "value") return h("div", { class: "dl-toolbar" }, this.legend, h("div", { class: "dl-tools" }, this.layers()));
      const choices = Object.keys(PRESS).map((paint) => h("button", { type: "button", "aria-pressed": String(paint === this.paint),
        title: PRESS[paint], onclick: () => this.setPaint(paint), "data-paint": paint }, paint));
      this.paints = choices;
      return h("div", { class: "dl-toolbar" }, this.legend, this.scale,
        h("div", { class: "dl-tools" },
          h("div", { class: "dl-segment", role: "group", "aria-label": "Colour by" }, h("span", { "aria-hidden": "true", title: "Colour by" }, "◐"), ...choices)));
    }

    layers() {
      const hidden = new Set();
      const toggle = (name, button) => {
        if (hidden.has(name)) hidden.delete(name); else hidden.add(name);
        button.setAttribute("aria-pressed", String(!hidden.has(name)));
        this.root.dataset.hide = [...hidden].join(" ");
      };
      return h("div", { class: "dl-segment dl-fan-show", role: "group", "aria-label": "Show in the charts" }, ...Object.entries(LAYERS).map(([name, title]) => {
        const button = h("button", { type: "button", "aria-pressed": "true", title, "data-layer": name, onclick: () => toggle(name, button) }, lab.layerSign(name), name);
        return button;
      }));
    }

    ratioControl() {
      const ratio = h("input", { type: "range", min: "0", max: "0.5", step: "0.01", value: String(this.race.ratio),
        "aria-label": "Cost of a draft call in target calls, for the modelled speedup" });
      const shown = h("output", {}, String(this.race.ratio));
      ratio.addEventListener("input", () => {
        this.race.ratio = Number(ratio.value);
        shown.textContent = ratio.value;
        this.race.changed("time");
      });
      return h("label", { class: "dl-ratio", title: "“modelled” counts a target call as 1 whatever its rows, as on a large model that waits for memory, and a draft call as this much" },
        "modelled: a draft call costs", ratio, shown);
    }

    replay() {
      const button = (label, text, action, extra = {}) =>
        h("button", { type: "button", class: "dl-button", "aria-label": label, title: label, onclick: action, ...extra }, text);
      this.playButton = button("Play the replay (Space)", "▶", () => this.race.toggle(), { class: "dl-button dl-play" });
      this.slider = h("input", { type: "range", min: "0", max: "1", step: "any", value: "1", "aria-label": "Moment of the race" });
      this.slider.addEventListener("input", () => { this.race.pause(); this.race.seek(Number(this.slider.value)); });
      this.clock = h("output", { class: "dl-clock" }, "0.00 s");
      const speed = h("select", { "aria-label": "Replay speed" },
        ...[0.25, 0.5, 1, 2, 4].map((x) => h("option", { value: String(x), ...(x === 1 ? { selected: true } : {}) }, `${x}×`)));
      speed.addEventListener("change", () => { this.race.speed = Number(speed.value); });
      this.followButton = button("Follow the newest step (End)", "Latest", () => this.race.follow(), { class: "dl-button dl-follow" });
      this.bar = h("div", { class: "dl-replay", role: "group", "aria-label": "Replay" },
        button("One step back", "‹", () => this.race.step(-1)), this.playButton, button("One step forward", "›", () => this.race.step(1)),
        this.slider, this.clock, speed, this.followButton);
      return this.bar;
    }

    /* ---- drawing ---- */
    draw(what) {
      const { race } = this, { value } = race;
      this.lanes.classList.toggle("is-bare", !value);
      if (!value) return;
      if (what === "data") {
        if (this.runId !== value.run_id || this.columns.length !== race.lanes.length) this.rebuild();
        this.drawNotice();
        this.root.classList.toggle("is-seeds", !!value.seeds);
      }
      race.lanes.forEach((lane, i) => this.drawLane(lane, this.columns[i]));
      if (what === "data") this.drawVerdict();
      this.drawReplay();
      this.drawLegend();
      this.announce();
    }

    rebuild() {
      this.runId = this.race.value.run_id;
      this.card.hide();
      this.columns = this.race.lanes.map((lane, i) => this.column(lane, i));
      this.lanes.replaceChildren(...this.columns.map((c) => c.root));
      this.lanes.style.setProperty("--lanes", String(this.columns.length));
      this.lanes.style.setProperty("--across", String(Math.min(2, this.columns.length)));
      this.lanes.scrollLeft = 0;
      if (!this.race.value.recorded && innerWidth <= 900) this.root.scrollIntoView({ block: "start" });
    }

    column(lane, i) {
      const c = { index: i };
      c.name = h("h3", {});
      c.state = h("span", { class: "dl-state" });
      c.chips = h("div", { class: "dl-chips" });
      c.exact = h("span", { class: "dl-chip" });
      c.worth = h("span", { class: "dl-chip", title: `mean log probability of the ${this.whole} under the target, at temperature 1: the higher, the likelier the target finds it` });
      c.right = h("span", { class: "dl-chip", title: "of the attributes that the prompt names, those that our judge reads back from the finished picture" });
      c.guarantee = h("span", { class: "dl-chip" });
      c.stats = [`${this.word}/s`, "calls", `${this.word} / call`].map((label) => {
        const value = h("b", {}, "–"), name = h("span", {}, label);
        return { value, label: name, node: h("div", {}, value, name) };
      });
      c.calls = document.createTextNode("–");
      c.draftCalls = h("small", {});
      c.stats[1].value.replaceChildren(c.calls, c.draftCalls);
      c.speeds = ["calls", "modelled", "time"].map((label) => {
        const value = h("b", {}, "–");
        return { value, node: h("div", {}, value, h("span", {}, label)) };
      });
      c.speedLine = h("div", { class: "dl-stats dl-speeds", title: `Against lane 1, per ${this.unit}: model calls, modelled cost, measured compute time (indicative)` },
        ...c.speeds.map((s) => s.node));
      c.progress = h("div", { class: "dl-progress" }, h("i", {}));
      c.message = h("p", { class: "dl-message", hidden: true });
      c.body = new (this.kind.body())(this, i);
      c.why = h("p", { class: "dl-why", hidden: true });
      c.chips.append(c.guarantee, c.exact, c.right, c.worth);
      c.root = h("article", { class: "dl-lane", "data-lane": String(i + 1) },
        h("header", {}, h("div", { class: "dl-place" }, h("span", { class: "dl-marker", "aria-hidden": "true" }, lab.SIGNS[i % 4]), `Lane ${i + 1}`, c.state),
          c.name, c.progress, c.chips, h("div", { class: "dl-stats" }, ...c.stats.map((s) => s.node)), c.speedLine),
        h("div", { class: "dl-main" }, c.message, c.body.node), c.body.ghost, c.why);
      return c;
    }

    drawNotice() {
      const { value } = this.race, text = value.recorded ? value.recorded : value.notice;
      const key = `${value.run_id}|${text}|${value.prompt}`;
      if (this.noticeKey === key) return;
      this.noticeKey = key;
      this.notice.hidden = false;
      const parts = [];
      if (value.recorded) {
        parts.push(h("span", { class: "dl-tag" }, "recorded, not live"), h("span", { class: "dl-when" }, value.recorded),
          h("button", { type: "button", class: "dl-button dl-run-live", onclick: () => lab.press(`${this.id}-run`) }, "Run it live"));
      } else {
        parts.push(h("span", { class: "dl-tag is-live" }, "live"), h("span", { class: "dl-when" }, value.notice || "measured on this machine, in this process"));
      }
      const most = this.unit === "token" ? ` · at most ${value.budget} tokens` : "", seeds = value.seeds ? `seeds from ${value.seed}` : `seed ${value.seed}`;
      const settings = `temperature ${value.temperature} · ${seeds}${most}`;
      const scale = /@cfg=([\d.]+)/.exec(value.lanes[0].models?.target || "")?.[1], guidance = scale ? `guidance ${scale} · ` : "";
      this.notice.replaceChildren(h("div", { class: "dl-origin" }, ...parts),
        h("p", { class: "dl-prompt", title: value.prompt }, h("span", {}, `${this.kind.asked} `), h("bdi", {}, visible(value.prompt.slice(0, 400)))),
        h("p", { class: "dl-settings" }, guidance + settings), this.ratio, this.verdict);
    }

    /* The result in words, for everybody who will not read the numbers. */
    drawVerdict() {
      const { race } = this, { value } = race;
      set(this.verdict, race.active ? progressOf(race) : verdictOf(race, this.whole));
      this.verdict.dataset.state = value.state;
    }

    drawLane(lane, c) {
      const { meta } = lane, { race } = this;
      this.drawHead(lane, c);
      const k = race.at(lane);
      c.body.draw(lane, k, race.playing || (race.following && meta.state === "running"));
    }

    drawHead(lane, c) {
      const { meta } = lane, m = this.race.measures(lane), s = this.race.speedups(lane);
      set(c.name, meta.name);
      c.name.title = [meta.family, meta.knobs, Object.entries(meta.models).map(([r, id]) => `${r}: ${id}`).join(", ")].filter(Boolean).join(" · ");
      set(c.state, STATES[meta.state] || meta.state);
      c.state.dataset.state = meta.state;
      c.root.dataset.state = meta.state;
      const loading = meta.state === "loading";
      const done = loading ? meta.fraction : m ? m.units / (this.most(lane) || 1) : 0;
      c.progress.firstChild.style.width = `${Math.min(100, 100 * done)}%`;
      c.progress.classList.toggle("is-loading", loading);
      set(c.guarantee, meta.guarantee || "unknown");
      c.guarantee.dataset.kind = meta.guarantee;
      c.guarantee.title = meta.meaning;
      this.drawExact(meta, c);
      set(c.stats[0].value, m ? number(m.rate) : "–");
      set(c.calls, m ? String(m.calls) : "–");
      set(c.draftCalls, m && m.draftCalls ? ` +${m.draftCalls}` : "");
      c.stats[1].node.title = m ? `${m.calls} calls of the target, ${m.draftCalls} of the drafter` : "";
      set(c.stats[2].value, m ? number(m.length, 2) : "–");
      c.stats[2].node.title = `mean acceptance length: new ${this.unit}s per target call, the bonus included`;
      c.speedLine.classList.toggle("is-baseline", c.index === 0);
      if (c.index === 0) { set(c.speedLine, "baseline of every ratio"); }
      else ["calls", "modelled", "time"].forEach((name, i) => {
        set(c.speeds[i].value, s ? times(s[name]) : "–");
        c.speeds[i].node.classList.toggle("is-slow", !!s && s[name] < 0.995);
      });
      const waiting = meta.state === "queued" && this.race.value.ahead ? `waiting for the device, ${this.race.value.ahead} before you` : "";
      const message = meta.message || waiting;
      set(c.message, loading && message && meta.fraction < 1 ? `${message} · ${percent(meta.fraction)}` : message);
      c.message.hidden = !message;
      set(c.why, this.race.active ? "" : meta.why || "");
      c.why.hidden = !c.why.textContent;
    }

    /* Units of a whole answer. */
    most({ meta }) {
      const { picture, budget } = meta;
      if (picture?.horizon) return picture.horizon;
      return picture ? picture.grid[0] * picture.grid[1] - picture.given.length : budget ?? this.race.value.budget;
    }

    drawExact(meta, c) {
      const { exact } = meta, gap = exact.gap === null || exact.gap === undefined ? "" : `, gap ${chance(exact.gap)}`;
      const text = { same: exact.over ? `= same ${this.whole}` : "= same so far", differs: `≠ differs at ${exact.at + 1}${gap}`,
        sample: "another sample", prompts: "other prompts", model: "another model" }[exact.kind] || "";
      const painted = meta.worth?.by_painter, worth = painted ?? meta.worth?.log_likelihood, right = meta.worth?.attributes;
      if (this.unit === "value") this.drawScores(meta, c);
      else {
        c.worth.hidden = worth === undefined;
        set(c.worth, `${worth?.toFixed(2)} nats/${painted === undefined ? "token" : "cell"}`);
        if (painted !== undefined) c.worth.title = "mean log probability of a cell under the plain painter of this style, whoever painted it: the higher, the likelier it finds the picture";
        c.right.hidden = right === undefined;
        set(c.right, `${percent(right)} as asked`);
      }
      c.exact.hidden = !text;
      set(c.exact, text);
      c.exact.dataset.kind = exact.kind;
      c.exact.title = { same: `${this.unit} for ${this.unit} the ${this.whole} of lane 1`, sample: `at this temperature two exact runs may give different ${this.whole}s`,
        prompts: "it answers several prompts, lane 1 only the first", model: "its target is another model than lane 1's", differs: `first ${this.unit} that differs from lane 1; gap: distance of the baseline's two best probabilities there` }[exact.kind] || "";
    }

    drawScores({ scores }, c) {
      c.right.hidden = scores?.mase === undefined;
      set(c.right, `MASE ${scores?.mase?.toPrecision(3)}`);
      c.right.title = "mean absolute error of the median over the mean seasonal error of the past: below 1 beats repeating the season";
      c.worth.hidden = scores?.coverage80 === undefined;
      set(c.worth, `${percent(scores?.coverage80)} in the 80 % band`);
      c.worth.title = "share of the truth that lies inside the band that should hold 80 % of it";
    }

    drawReplay() {
      const { race } = this, end = race.end;
      this.bar.classList.toggle("is-idle", !end);
      this.slider.max = String(end || 1);
      if (document.activeElement !== this.slider || race.playing || race.following) this.slider.value = String(race.now);
      this.slider.setAttribute("aria-valuetext", `${number(race.now, 2)} of ${number(end, 2)} seconds of lane compute time`);
      this.slider.style.setProperty("--done", `${end ? (100 * race.now) / end : 100}%`);
      set(this.clock, `${number(race.now, 2)} / ${number(end, 2)} s`);
      set(this.playButton, race.playing ? "❚❚" : "▶");
      this.playButton.setAttribute("aria-label", race.playing ? "Pause the replay (Space)" : "Play the replay (Space)");
      set(this.followButton, race.active ? "Follow live" : "Latest");
      this.followButton.disabled = race.following && !race.playing;
    }

    drawLegend() {
      for (const [fate, { key, count }] of Object.entries(this.keys)) {
        let total = 0;
        for (const [i, lane] of this.race.lanes.entries()) {
          total += this.columns[i].body.counts[fate] || 0;
          if (["rejected", "unread", "guess", "erased"].includes(fate)) total += ghosts(lane, this.race.at(lane), fate);
        }
        set(count, String(total));
        key.classList.toggle("is-none", !total);
      }
    }

    /* One sentence for screen readers, at most every two seconds. */
    announce() {
      const now = Date.now(), { race } = this, { value } = race;
      const key = `${value.run_id}|${value.state}`;
      if (now - this.said < 2000 && !(key !== this.saidKey && !race.active)) return;
      if (race.playing || (!race.active && key === this.saidKey)) return;
      this.said = now;
      this.saidKey = key;
      const lanes = race.lanes.map((lane) => {
        const m = race.measures(lane), s = race.speedups(lane);
        if (lane.meta.state === "error") return `${lane.meta.name}: ${lane.meta.message}`;
        return m ? `${lane.meta.name}: ${m.units} ${this.unit}s${s ? `, ${number(s.time, 2)} times lane 1 in time` : ""}` : "";
      });
      set(this.live, [value.recorded ? "Recorded race" : value.state, ...lanes].filter(Boolean).join(". "));
    }

    /* ---- colours ---- */
    setPaint(paint) {
      this.paint = paint;
      for (const choice of this.paints) choice.setAttribute("aria-pressed", String(choice.dataset.paint === paint));
      this.root.dataset.paint = paint;
      this.legend.hidden = paint !== "origin";
      this.scale.hidden = paint === "origin";
      const ends = paint === "step" ? ["first step", "last step"] : ["unlikely", "certain"];
      this.scale.firstChild.textContent = ends[0];
      this.scale.lastChild.textContent = ends[1];
      this.single("");
      for (const c of this.columns) c.body.retint();
      this.draw("time");
    }

    /* Dim every token but those of one fate; "" dims none. */
    single(fate) {
      this.chosen = fate;
      if (fate) this.root.dataset.only = fate; else delete this.root.dataset.only;
      for (const [name, { key }] of Object.entries(this.keys)) key.setAttribute("aria-pressed", String(name === fate));
    }
  }

  /* ---- helpers ---- */
  /* How many marks of a fate the first k steps made; remembered, since steps never change. */
  function ghosts(lane, k, fate) {
    const sums = (lane.sums ??= {})[fate] ??= [0];
    while (sums.length <= k) {
      const step = lane.steps[sums.length - 1];
      sums.push((fate === "guess" || fate === "erased" ? 0 : sums.at(-1)) + step.marks.filter((m) => m[2] === fate).length);
    }
    return sums[k];
  }

  function progressOf(race) {
    const { value } = race, busy = race.lanes.find((lane) => lane.meta.state === "loading" && lane.meta.message !== "ready");
    if (value.state === "queued") return value.ahead ? `Waiting for the device: ${value.ahead} before you.` : "Waiting for the device.";
    if (value.state === "loading") return busy ? `Getting ready: ${busy.meta.name}.` : "Getting ready.";
    return "Racing: the lane that has computed least so far takes the next step.";
  }

  function verdictOf(race, whole) {
    if (race.value.seeds) return race.value.state === "stopped" ? "Stopped before the end." : "One strategy, four seeds.";
    const done = race.lanes.slice(1).map((lane) => ({ lane, s: race.speedups(lane, true) })).filter((x) => x.s);
    const failed = race.lanes.filter((lane) => lane.meta.state === "error").length;
    const parts = [];
    if (done.length) {
      const best = done.reduce((a, b) => (b.s.time > a.s.time ? b : a)), { s, lane } = best;
      parts.push(s.time > 1.005
        ? `${lane.meta.name} was fastest: ${times(s.time)} in time, with ${percent(1 / s.calls)} of the calls.`
        : `No strategy beat lane 1 in time here; ${lane.meta.name} came closest with ${times(s.time)}.`);
      const kinds = done.map(({ lane: l }) => l.meta.exact.kind);
      if (kinds.every((kind) => kind === "same")) parts.push(`Every lane made the same ${whole}.`);
      else if (kinds.includes("sample")) parts.push("At this temperature lossless lanes may give different samples.");
      else if (kinds.includes("differs")) parts.push(`Not every ${whole} is lane 1's: see the badges.`);
    }
    if (race.value.state === "stopped") parts.push("Stopped before the end.");
    if (failed) parts.push(`${failed === 1 ? "One lane" : `${failed} lanes`} could not run.`);
    return parts.join(" ");
  }

  /* What gr.HTML calls: draw the value now and whenever Python sends a new one. */
  lab.mountBoard = (element, props, watch) => {
    const board = new Board(element, props.race || "text", props.unit || "token");
    board.race.set(props.value);
    watch("value", () => board.race.set(props.value));
  };
})();
