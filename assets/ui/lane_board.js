/* LaneBoard: the lanes of a race side by side, the token card, the legend and the replay bar. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountBoard) return;
  const { h, set, visible, number, times, percent, chance, FATES, CIVIDIS, Card, branches, confidence, token } = lab;

  const STATES = { queued: "queued", loading: "loading", running: "running", stopped: "stopped", done: "done", error: "error" };
  const MARKERS = ["○", "■", "▲", "◆"];
  const PRESS = { origin: "what happened to each token", step: "when it was written", confidence: "the target's probability at temperature 1" };
  class Board {
    constructor(element, id) {
      this.race = lab.race(id);
      this.id = id;
      this.paint = "origin";
      this.columns = [];
      this.said = 0;
      this.build(element);
      this.race.watch((what) => this.draw(what));
    }

    build(element) {
      this.root = h("section", { class: "dl-board", "aria-label": "Race" });
      this.notice = h("div", { class: "dl-notice", hidden: true });
      this.ratio = this.ratioControl();
      this.verdict = h("p", { class: "dl-verdict" });
      this.live = h("div", { class: "dl-sr", role: "status", "aria-live": "polite" });
      this.lanes = h("div", { class: "dl-lanes" });
      this.card = new Card(`${this.id}-card`);
      this.lanes.append(h("p", { class: "dl-bare" }, "Choose strategies and press Run: every lane answers the same prompt, and every token shows how it came about."));
      this.root.append(this.notice, this.toolbar(), this.lanes, this.replay(), this.card.node, this.live);
      element.replaceChildren(this.root);
      this.lanes.addEventListener("pointerover", (e) => this.card.show(e.target));
      this.lanes.addEventListener("pointerleave", () => this.card.hide());
      this.lanes.addEventListener("focusin", (e) => this.card.show(e.target));
      this.lanes.addEventListener("focusout", () => this.card.hide());
      this.lanes.addEventListener("click", (e) => { const t = e.target.closest(".dl-text .dl-tok"); if (t) this.rove(t); });
      this.lanes.addEventListener("keydown", (e) => this.onKey(e));
    }

    toolbar() {
      this.legend = h("div", { class: "dl-legend", role: "group", "aria-label": "Legend: press to single out" });
      this.keys = {};
      for (const [fate, [name, meaning]] of Object.entries(FATES)) {
        const count = h("span", { class: "dl-count" }, "0");
        const sample = h("span", { class: "dl-tok", "data-f": fate, "aria-hidden": "true" }, "ab");
        const key = h("button", { type: "button", class: "dl-key", title: meaning, "aria-pressed": "false",
          onclick: () => this.single(key.getAttribute("aria-pressed") === "true" ? "" : fate),
          onpointerenter: (e) => { if (e.pointerType === "mouse") this.root.dataset.only = fate; },
          onpointerleave: () => this.single(this.chosen || "") }, sample, name, count);
        this.keys[fate] = { key, count };
        this.legend.append(key);
      }
      this.scale = h("div", { class: "dl-scale", hidden: true }, h("span", {}), h("i", {}), h("span", {}));
      const choices = Object.keys(PRESS).map((paint) => h("button", { type: "button", "aria-pressed": String(paint === this.paint),
        title: PRESS[paint], onclick: () => this.setPaint(paint), "data-paint": paint }, paint));
      this.paints = choices;
      return h("div", { class: "dl-toolbar" }, this.legend, this.scale,
        h("div", { class: "dl-tools" },
          h("div", { class: "dl-segment", role: "group", "aria-label": "Colour by" }, h("span", { "aria-hidden": "true", title: "Colour by" }, "◐"), ...choices)));
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
      this.columns = this.race.lanes.map((lane, i) => this.column(i));
      this.lanes.replaceChildren(...this.columns.map((c) => c.root));
      this.lanes.style.setProperty("--lanes", String(this.columns.length));
      this.lanes.scrollLeft = 0;
      if (!this.race.value.recorded && innerWidth <= 900) this.root.scrollIntoView({ block: "start" });
    }

    column(i) {
      const c = { index: i, shown: 0, stepsDrawn: 0, tokens: [], ends: [0], counts: {} };
      c.name = h("h3", {});
      c.state = h("span", { class: "dl-state" });
      c.chips = h("div", { class: "dl-chips" });
      c.exact = h("span", { class: "dl-chip" });
      c.worth = h("span", { class: "dl-chip", title: "mean log probability of the text under the target, at temperature 1: the higher, the likelier the target finds it" });
      c.guarantee = h("span", { class: "dl-chip" });
      c.stats = ["tok/s", "calls", "tok / call"].map((label) => {
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
      c.speedLine = h("div", { class: "dl-stats dl-speeds", title: "Against lane 1, per token: model calls, modelled cost, measured compute time (indicative)" },
        ...c.speeds.map((s) => s.node));
      c.progress = h("div", { class: "dl-progress" }, h("i", {}));
      c.message = h("p", { class: "dl-message", hidden: true });
      c.body = h("div", { class: "dl-text", role: "listbox", "aria-orientation": "horizontal", tabindex: "-1" });
      c.caret = h("span", { class: "dl-caret", "aria-hidden": "true" });
      c.body.append(c.caret);
      c.ghostLabel = h("span", { class: "dl-ghost-label" });
      c.ghostRows = h("div", { class: "dl-ghost-rows" });
      c.ghost = h("div", { class: "dl-ghost" }, c.ghostLabel, c.ghostRows);
      c.why = h("p", { class: "dl-why", hidden: true });
      c.chips.append(c.guarantee, c.exact, c.worth);
      c.root = h("article", { class: "dl-lane", "data-lane": String(i + 1) },
        h("header", {}, h("div", { class: "dl-place" }, h("span", { class: "dl-marker", "aria-hidden": "true" }, MARKERS[i % 4]), `Lane ${i + 1}`, c.state),
          c.name, c.progress, c.chips, h("div", { class: "dl-stats" }, ...c.stats.map((s) => s.node)), c.speedLine),
        h("div", { class: "dl-main" }, c.message, c.body), c.ghost, c.why);
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
      const settings = `temperature ${value.temperature} · seed ${value.seed} · at most ${value.budget} tokens`;
      this.notice.replaceChildren(h("div", { class: "dl-origin" }, ...parts),
        h("p", { class: "dl-prompt", title: value.prompt }, h("span", {}, "Prompt "), h("bdi", {}, visible(value.prompt.slice(0, 400)))),
        h("p", { class: "dl-settings" }, settings), this.ratio, this.verdict);
    }

    /* The result in words, for everybody who will not read the numbers. */
    drawVerdict() {
      const { race } = this, { value } = race;
      set(this.verdict, race.active ? progressOf(race) : verdictOf(race));
      this.verdict.dataset.state = value.state;
    }

    drawLane(lane, c) {
      const { meta } = lane, { race } = this;
      this.drawHead(lane, c);
      const k = race.at(lane);
      while (c.stepsDrawn < lane.steps.length) this.appendStep(lane, c);
      this.showSteps(lane, c, k);
      this.drawGhost(lane, c, k);
      const moving = race.following && meta.state === "running";
      c.caret.hidden = !(moving || race.playing);
      if ((moving || race.playing) && c.stick !== false) c.body.scrollTop = c.body.scrollHeight;
    }

    drawHead(lane, c) {
      const { meta } = lane, m = this.race.measures(lane), s = this.race.speedups(lane);
      set(c.name, meta.name);
      c.name.title = [meta.family, meta.knobs, Object.entries(meta.models).map(([r, id]) => `${r}: ${id}`).join(", ")].filter(Boolean).join(" · ");
      set(c.state, STATES[meta.state] || meta.state);
      c.state.dataset.state = meta.state;
      c.root.dataset.state = meta.state;
      const loading = meta.state === "loading";
      const done = loading ? meta.fraction : m ? m.units / (this.race.value.budget || 1) : 0;
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
      c.stats[2].node.title = "mean acceptance length: new tokens per target call, the bonus included";
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

    drawExact(meta, c) {
      const { exact } = meta, gap = exact.gap === null || exact.gap === undefined ? "" : `, gap ${chance(exact.gap)}`;
      const text = { same: exact.over ? "= same text" : "= same so far", differs: `≠ differs at ${exact.at + 1}${gap}`,
        sample: "another sample", prompts: "other prompts", model: "another model" }[exact.kind] || "";
      const worth = meta.worth?.log_likelihood;
      c.worth.hidden = worth === undefined;
      set(c.worth, `${worth?.toFixed(2)} nats/token`);
      c.exact.hidden = !text;
      set(c.exact, text);
      c.exact.dataset.kind = exact.kind;
      c.exact.title = { same: "token for token the text of lane 1", sample: "at this temperature two exact runs may print different texts",
        prompts: "it answers several prompts, lane 1 only the first", model: "its target is another model than lane 1's", differs: "first token that differs from lane 1; gap: distance of the baseline's two best probabilities there" }[exact.kind] || "";
    }

    /* Append the tokens that one step committed. */
    appendStep(lane, c) {
      const index = c.stepsDrawn, step = lane.steps[index], nodes = document.createDocumentFragment();
      const marks = step.marks.filter((m) => m[2] === "kept" || m[2] === "fixed" || m[2] === "bonus").sort((a, b) => a[0] - b[0]);
      for (const mark of marks) {
        const node = token(mark);
        node.setAttribute("role", "option");
        node.setAttribute("tabindex", c.tokens.length ? "-1" : "0");
        node.hidden = true;
        node.dlab = { mark, step: index, lane };
        this.tint(node);
        c.tokens.push(node);
        const text = step.figures?.texts > 1 ? this.part(c, Math.floor(mark[0] / step.figures.share)) : nodes;
        text.append(node);
      }
      c.body.insertBefore(nodes, c.caret);
      c.ends.push(c.tokens.length);
      c.stepsDrawn += 1;
      if (index === 0) c.body.addEventListener("scroll", () => {
        c.stick = c.body.scrollHeight - c.body.scrollTop - c.body.clientHeight < 24;
      }, { passive: true });
    }

    /* The paragraph of one of several texts that a lane writes at once. */
    part(c, i) {
      c.parts ??= [];
      for (let n = c.parts.length; n <= i; n++) {
        const part = h("span", { class: "dl-part" }, h("small", { "aria-hidden": "true" }, `${n + 1}`));
        c.parts.push(part);
        c.body.insertBefore(part, c.caret);
      }
      return c.parts[i];
    }

    showSteps(lane, c, k) {
      const want = c.ends[k];
      for (; c.shown < want; c.shown++) this.reveal(c, c.tokens[c.shown], 1);
      while (c.shown > want) { c.shown -= 1; this.reveal(c, c.tokens[c.shown], -1); }
      const last = c.ends[Math.max(0, k - 1)];
      const fresh = new Set(c.tokens.slice(last, want));
      for (const node of c.fresh || []) if (!fresh.has(node)) node.classList.remove("is-new");
      for (const node of fresh) node.classList.add("is-new");
      c.fresh = fresh;
      c.body.setAttribute("aria-label", `Text of lane ${c.index + 1}, ${lane.meta.name}, ${want} tokens`);
    }

    reveal(c, node, sign) {
      node.hidden = sign < 0;
      const fate = node.dataset.f;
      c.counts[fate] = (c.counts[fate] || 0) + sign;
    }

    /* The draft, tree or window of the last step. */
    drawGhost(lane, c, k) {
      if (c.ghostAt === k && c.ghostPaint === this.paint) return;
      c.ghostAt = k;
      c.ghostPaint = this.paint;
      const step = k ? lane.steps[k - 1] : null;
      const marks = step ? step.marks.filter((m, i) => { m.at = i; return m[2] !== "bonus" || step.marks.length > 1; }) : [];
      c.ghost.classList.toggle("is-empty", !marks.length);
      const tree = marks.some((m) => m[6] !== null && m[6] !== undefined);
      set(c.ghostLabel, !step ? "" : step.note || (tree ? "tree" : marks.some((m) => m[2] === "guess") ? "window" : marks.length ? "draft" : "no draft"));
      const rows = tree ? branches(marks) : [marks.slice(0, 64)];
      c.ghostRows.replaceChildren(...rows.slice(0, 6).map((row) => h("div", { class: "dl-ghost-row" }, ...row.map((mark) => {
        const node = token(mark, true);
        node.dlab = { mark, step: k - 1, lane };
        this.tint(node);
        return node;
      }))), ...(rows.length > 6 ? [h("span", { class: "dl-more" }, `${rows.length - 6} more branches`)] : []));
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
          if (this.columns[i].counts[fate]) total += this.columns[i].counts[fate];
          if (fate === "rejected" || fate === "unread" || fate === "guess") total += ghosts(lane, this.race.at(lane), fate);
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
        return m ? `${lane.meta.name}: ${m.units} tokens${s ? `, ${number(s.time, 2)} times lane 1 in time` : ""}` : "";
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
      for (const c of this.columns) for (const node of c.tokens) this.tint(node);
      this.draw("time");
    }

    tint(node) {
      if (this.paint === "origin") { node.style.removeProperty("--heat"); return; }
      const { mark, step, lane } = node.dlab;
      const x = this.paint === "step" ? step / Math.max(1, lane.steps.length - 1) : confidence(mark);
      if (x === null || x === undefined) node.style.removeProperty("--heat");
      else node.style.setProperty("--heat", CIVIDIS[Math.round(8 * Math.max(0, Math.min(1, x)))]);
    }

    /* Dim every token but those of one fate; "" dims none. */
    single(fate) {
      this.chosen = fate;
      if (fate) this.root.dataset.only = fate; else delete this.root.dataset.only;
      for (const [name, { key }] of Object.entries(this.keys)) key.setAttribute("aria-pressed", String(name === fate));
    }

    /* ---- moving between tokens ---- */
    rove(node) {
      const list = node.closest(".dl-text");
      for (const other of list.querySelectorAll('.dl-tok[tabindex="0"]')) other.setAttribute("tabindex", "-1");
      node.setAttribute("tabindex", "0");
      node.focus();
    }

    onKey(event) {
      const node = event.target.closest?.(".dl-text .dl-tok");
      if (!node) return;
      const c = this.columns.find((col) => col.body === node.closest(".dl-text")), i = c.tokens.indexOf(node), last = c.shown - 1;
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, ArrowDown: i + 8, ArrowUp: i - 8, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      this.rove(c.tokens[Math.max(0, Math.min(last, to))]);
    }
  }

  /* ---- helpers ---- */
  /* How many marks of a fate the first k steps made; remembered, since steps never change. */
  function ghosts(lane, k, fate) {
    const sums = (lane.sums ??= {})[fate] ??= [0];
    while (sums.length <= k) {
      const step = lane.steps[sums.length - 1];
      sums.push((fate === "guess" ? 0 : sums.at(-1)) + step.marks.filter((m) => m[2] === fate).length);
    }
    return sums[k];
  }

  function progressOf(race) {
    const { value } = race, busy = race.lanes.find((lane) => lane.meta.state === "loading" && lane.meta.message !== "ready");
    if (value.state === "queued") return value.ahead ? `Waiting for the device: ${value.ahead} before you.` : "Waiting for the device.";
    if (value.state === "loading") return busy ? `Getting ready: ${busy.meta.name}.` : "Getting ready.";
    return "Racing: the lane that has computed least so far takes the next step.";
  }

  function verdictOf(race) {
    const done = race.lanes.slice(1).map((lane) => ({ lane, s: race.speedups(lane, true) })).filter((x) => x.s);
    const failed = race.lanes.filter((lane) => lane.meta.state === "error").length;
    const parts = [];
    if (done.length) {
      const best = done.reduce((a, b) => (b.s.time > a.s.time ? b : a)), { s, lane } = best;
      parts.push(s.time > 1.005
        ? `${lane.meta.name} was fastest: ${times(s.time)} in time, with ${percent(1 / s.calls)} of the calls.`
        : `No strategy beat lane 1 in time here; ${lane.meta.name} came closest with ${times(s.time)}.`);
      const kinds = done.map(({ lane: l }) => l.meta.exact.kind);
      if (kinds.every((kind) => kind === "same")) parts.push("Every lane wrote the same text.");
      else if (kinds.includes("sample")) parts.push("At this temperature lossless lanes may print different samples.");
      else if (kinds.includes("differs")) parts.push("Not every text is lane 1's: see the badges.");
    }
    if (race.value.state === "stopped") parts.push("Stopped before the end.");
    if (failed) parts.push(`${failed === 1 ? "One lane" : `${failed} lanes`} could not run.`);
    return parts.join(" ");
  }

  /* What gr.HTML calls: draw the value now and whenever Python sends a new one. */
  lab.mountBoard = (element, props, watch) => {
    const board = new Board(element, props.race || "text");
    board.race.set(props.value);
    watch("value", () => board.race.set(props.value));
  };
})();
