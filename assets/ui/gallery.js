/* The gallery: one prompt through every strategy in turn, a row each, sorted as you like while it grows. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.mountGallery) return;
  const { h, set, visible, number, times, percent } = lab;

  const ORDER = { lossless: 0, "greedy-exact": 1, lossy: 2, "": 3 };
  const known = (x) => x !== null && x !== undefined;
  const missing = (row, key) => !known(row[key]);
  const OPEN = new Set(["queued", "loading", "running"]);
  /* What a row is sorted by: smaller comes first; rows that do not know, or still change, come last. */
  const SORTS = {
    time: { title: "time", from: "speed_time", key: (r) => -r.speed_time },
    calls: { title: "calls", from: "speed_calls", key: (r) => -r.speed_calls },
    guarantee: { title: "guarantee", from: "guarantee", key: (r) => ORDER[r.guarantee] * 1e6 - (r.speed_time || 0) },
    rate: { title: "tok/s", from: "rate", key: (r) => -r.rate },
    length: { title: "tokens a call", from: "length", key: (r) => -r.length },
    name: { title: "name", from: "title", key: (r) => r.title },
  };
  const BUTTONS = ["time", "calls", "guarantee", "name"];
  const COLUMNS = [["name", "strategy"], ["guarantee", "guarantee"], ["length", "tok / call"], ["", "calls"], ["rate", "tok/s"], ["calls", "× calls"], ["time", "× time"], ["", "text"]];

  class Gallery {
    constructor(element, others) {
      Object.assign(this, { sort: "time", kind: "text", own: null, others: Object.fromEntries(others.map((o) => [o.id, o.value])) });
      this.kinds = [["text", "Text"], ...others.map((o) => [o.id, o.title])].map(([kind, title]) => h("button", { type: "button", "data-kind": kind, onclick: () => this.show(kind) }, title));
      this.switch = others.length ? h("div", { class: "dl-segment", role: "group", "aria-label": "What is written" }, ...this.kinds) : null;
      this.hint = h("span", { class: "dl-gal-hint" });
      this.open = new Set();
      this.rows = new Map();
      this.notice = h("div", { class: "dl-notice" });
      this.origin = h("div", { class: "dl-origin" });
      this.prompt = h("p", { class: "dl-prompt" });
      this.verdict = h("p", { class: "dl-verdict" });
      this.progress = h("div", { class: "dl-progress dl-gal-progress" }, h("i", {}));
      this.notice.append(this.origin, this.prompt, this.progress, this.verdict);
      this.buttons = BUTTONS.map((name) => h("button", { type: "button", "data-sort": name, onclick: () => this.by(name) }, SORTS[name].title));
      this.heads = COLUMNS.map(([sort, label]) => h("th", { scope: "col", "data-sort": sort || null }, sort ? h("button", { type: "button", onclick: () => this.by(sort) }, label) : label));
      this.body = h("tbody", {});
      this.table = h("table", { class: "dl-gal" }, h("caption", { class: "dl-sr" }, "All strategies on one prompt"), h("thead", {}, h("tr", {}, ...this.heads)), this.body);
      this.live = h("div", { class: "dl-sr", role: "status", "aria-live": "polite" });
      this.root = h("section", { class: "dl-board dl-gallery", "aria-label": "Gallery of all strategies" }, this.notice,
        h("div", { class: "dl-tools" }, this.switch, h("div", { class: "dl-segment", role: "group", "aria-label": "Sort by" }, h("span", { "aria-hidden": "true" }, "sort by"), ...this.buttons),
          this.hint),
        h("div", { class: "dl-gal-frame" }, this.table), this.live);
      element.replaceChildren(this.root);
    }

    by(name) { this.sort = name; this.draw(); }

    /* A value from Python is of texts; a run that begins is shown at once. */
    set(value) {
      const begins = this.own && value && this.own.run_id !== value.run_id;
      this.own = value;
      if (begins) this.kind = "text";
      if (this.kind === "text") this.put(value);
    }

    show(kind) {
      this.kind = kind;
      this.put(kind === "text" ? this.own : this.others[kind]);
    }

    label(i) { return this.value?.labels?.[{ 2: "length", 4: "rate", 7: "text" }[i]] || COLUMNS[i][1]; }

    put(value) {
      if (!value || !Array.isArray(value.rows)) return;
      if (this.value && this.value.run_id === value.run_id && value.rev < this.value.rev) return;
      if (this.value?.run_id !== value.run_id) { this.rows.clear(); this.body.replaceChildren(); }
      this.value = value;
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => { this.waiting = false; this.draw(); });
    }

    draw() {
      const { value } = this;
      if (!value) return;
      this.drawNotice();
      for (const b of this.kinds) b.setAttribute("aria-pressed", String(b.dataset.kind === this.kind));
      this.heads.forEach((th, i) => set(th.querySelector("button") || th, this.label(i)));
      set(this.hint, value.hint || "× is against plain decoding, per token. Press a name for details.");
      for (const b of this.buttons) b.setAttribute("aria-pressed", String(b.dataset.sort === this.sort));
      for (const th of this.heads) if (th.dataset.sort === this.sort) th.setAttribute("aria-sort", this.sort === "name" ? "ascending" : "descending"); else th.removeAttribute("aria-sort");
      const { key, from } = SORTS[this.sort], most = Math.max(1, ...value.rows.map((r) => r.speed_time || 0));
      const sorted = value.rows.map((row, i) => ({ row, i, none: missing(row, from) || OPEN.has(row.state) })).sort((a, b) => a.none - b.none || (a.none ? a.i - b.i : compare(key(a.row), key(b.row)) || a.i - b.i));
      const nodes = sorted.flatMap(({ row }) => { const drawn = this.row(row, most); return [drawn.tr, drawn.more]; });
      const now = this.body.children;
      if (now.length !== nodes.length || nodes.some((n, i) => now[i] !== n)) {
        const held = document.activeElement;
        this.body.replaceChildren(...nodes);
        if (held && this.body.contains(held)) held.focus({ preventScroll: true });
      }
    }

    /* The two table rows of a strategy, made once and then only changed. */
    row(row, most) {
      const drawn = this.rows.get(row.id) || this.make(row);
      const key = JSON.stringify([row.state, row.message, row.tokens, row.calls, row.speed_time, row.same, most, this.open.has(row.id)]);
      if (drawn.key === key) return drawn;
      drawn.key = key;
      const { cells, tr, more } = drawn, base = row.same === "baseline";
      tr.dataset.state = row.state;
      set(drawn.state, { queued: "", done: "", loading: row.message || "loading", running: `${row.tokens || 0} tokens`, error: "could not run", stopped: "stopped" }[row.state] ?? row.state);
      set(drawn.chip, row.guarantee || "unknown");
      drawn.chip.dataset.kind = row.guarantee;
      drawn.chip.title = row.meaning;
      set(cells[2], known(row.length) ? number(row.length, 2) : "–");
      cells[3].replaceChildren(known(row.calls) ? String(row.calls) : "–", row.draft_calls ? h("small", {}, ` +${row.draft_calls}`) : "");
      set(cells[4], known(row.rate) ? number(row.rate) : "–");
      set(cells[5], known(row.speed_calls) ? times(row.speed_calls) : "–");
      const slow = known(row.speed_time) && row.speed_time < 0.995;
      cells[6].replaceChildren(h("span", { class: `dl-gal-time${slow ? " is-slow" : ""}` }, h("i", { style: `width:${Math.min(100, (100 * (row.speed_time || 0)) / most).toFixed(1)}%` }),
        h("u", { style: `left:${(100 / most).toFixed(1)}%` }), h("b", {}, known(row.speed_time) ? times(row.speed_time) : "–")));
      const text = row.note ? row.note : row.same === "baseline" ? "baseline" : row.same === "same" ? "= same" : row.same === "sample" ? "another sample" : row.same ? (row.same.startsWith("differs") ? `≠ ${row.same}` : row.same) : "–";
      cells[7].replaceChildren(text, known(row.worth) ? h("small", { title: "mean log probability of the text under the target: the higher, the likelier it finds it" }, ` ${row.worth.toFixed(2)} nats/token`) : "", row.detail ? h("small", { class: "dl-gal-detail", title: row.meaning_of_detail }, row.detail) : "");
      tr.classList.toggle("has-detail", Boolean(row.detail));
      cells[7].dataset.kind = row.same === "same" || row.same === "same on 100%" ? "same" : base ? "" : row.same && row.same.startsWith("differs") ? "differs" : "";
      cells[7].title = row.note ? "" : row.same === "sample" ? "at this temperature two exact runs may print different texts" : row.same === "same" || base ? "" : "first token that is not the baseline's, or the share of prompts that it answers token for token: in low precision two nearly tied tokens can swap";
      const open = this.open.has(row.id);
      drawn.name.setAttribute("aria-expanded", String(open));
      const race = row.link && !base ? h("p", {}, h("a", { href: row.link, target: "_blank", rel: "noopener" }, "Race it against plain decoding and look inside")) : null;
      const story = [row.about, row.state === "error" || row.state === "stopped" ? row.message : "", row.why || ""].filter(Boolean);
      const trouble = row.state === "error";
      more.hidden = !open && !trouble && !row.why;
      drawn.story.replaceChildren(...(open ? story : story.slice(1)).map((t) => h("p", {}, t)), ...(open && row.text ? [h("pre", {}, visible(row.text))] : []), ...(open && race ? [race] : []));
      return drawn;
    }

    make(row) {
      const name = h("button", { type: "button", class: "dl-gal-name", "aria-expanded": "false", onclick: () => { if (this.open.has(row.id)) this.open.delete(row.id); else this.open.add(row.id); this.draw(); } }, row.title);
      const state = h("span", { class: "dl-gal-state" }), chip = h("span", { class: "dl-chip" });
      const cells = COLUMNS.map((_, i) => h(i ? "td" : "th", i ? { "data-label": this.label(i) } : { scope: "row" }));
      cells[0].append(name, h("span", { class: "dl-gal-family" }, row.family), state);
      cells[1].append(chip);
      const story = h("td", { colspan: String(COLUMNS.length) });
      const drawn = { name, state, chip, cells, story, tr: h("tr", { class: "dl-gal-row", "data-id": row.id }, ...cells), more: h("tr", { class: "dl-gal-more", hidden: true }, story) };
      this.rows.set(row.id, drawn);
      return drawn;
    }

    drawNotice() {
      const { value } = this, tag = value.recorded ? h("span", { class: "dl-tag" }, "recorded, not live") : h("span", { class: "dl-tag is-live" }, "live");
      const settings = `temperature ${value.temperature} · at most ${value.budget} tokens`;
      const when = value.recorded || (value.ahead && value.state === "running" ? `waiting for the device, ${value.ahead} before you` : `one run each, in turn, alone on the device: indicative · ${settings}`);
      const key = `${value.run_id}|${when}`;
      if (this.noticeKey !== key) {
        this.noticeKey = key;
        this.origin.replaceChildren(tag, h("span", { class: "dl-when" }, when));
        this.prompt.replaceChildren(h("span", {}, value.prompt ? "Prompt " : ""), h("bdi", {}, visible(value.prompt.slice(0, 400))));
      }
      const running = value.state === "running", now = running ? value.rows[value.at] : null;
      this.progress.hidden = !running;
      this.progress.firstChild.style.width = `${(100 * value.at) / (value.rows.length || 1)}%`;
      const text = running ? `${value.at + 1} of ${value.rows.length}: ${now ? now.title : ""}` : verdict(value);
      set(this.verdict, text);
      this.verdict.dataset.state = value.state;
      if (!running && this.said !== value.run_id) { this.said = value.run_id; set(this.live, text); }
    }
  }

  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  function verdict(value) {
    const rows = value.rows.filter((r) => known(r.speed_time) && r.same !== "baseline" && r.state === "done");
    const failed = value.rows.filter((r) => r.state === "error").length, stopped = value.rows.filter((r) => r.state === "stopped").length;
    const parts = [];
    if (rows.length) {
      const best = rows.reduce((a, b) => (b.speed_time > a.speed_time ? b : a)), fewest = rows.reduce((a, b) => (b.speed_calls > a.speed_calls ? b : a));
      const slower = rows.filter((r) => r.speed_time < 0.995).length;
      parts.push(best.speed_time > 1 ? `${best.title} was fastest: ${times(best.speed_time)} in time.` : `None of ${rows.length} beat plain decoding in time here.`);
      if (fewest !== best) parts.push(`${fewest.title} made the fewest calls: ${percent(1 / fewest.speed_calls)} of the baseline's.`);
      if (slower) parts.push(`${slower} of ${rows.length} ${slower === 1 ? "was" : "were"} slower than plain decoding; the rows say why.`);
    }
    if (failed) parts.push(`${failed} could not run; ${failed === 1 ? "its row says" : "their rows say"} why.`);
    if (stopped) parts.push(`Stopped with ${stopped} to go.`);
    return parts.join(" ");
  }

  lab.mountGallery = (element, props, watch) => {
    const gallery = new Gallery(element, props.others || []);
    lab.gallery = gallery;
    gallery.set(props.value);
    watch("value", () => gallery.set(props.value));
  };
})();
