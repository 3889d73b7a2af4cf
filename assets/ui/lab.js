/* Decoding Lab in the browser: one store a tab that holds the race and the moment shown, and the keyboard.
   Views (lane_board.js, live_plots.js) draw what the store says. All text reaches the page as text nodes. */
(() => {
  "use strict";
  if (window.DecodingLab) return;

  const COLUMNS = ["clock", "units", "calls", "draftCalls", "rows", "draftRows", "seconds", "draftSeconds",
    "kept", "judged", "depth", "note", "marks", "parts", "figures", "frame"]; /* the last two are left out where they are empty */
  const ACTIVE = new Set(["queued", "loading", "running"]);

  /* One race: lanes with parsed steps, the time shown (Infinity follows the newest step), listeners. */
  class Race {
    constructor(id) {
      this.id = id;
      this.value = null;
      this.lanes = [];
      this.time = Infinity;
      this.speed = 1;
      this.playing = false;
      this.ratio = 0.05; /* cost of a draft call in target calls, for the modelled speedup */
      this.views = new Set();
      this.waiting = false;
    }

    watch(view) { this.views.add(view); if (this.value) view("data"); }

    /* Several changes in one frame reach the views once. */
    changed(what) {
      this.what = this.what === "data" ? "data" : what;
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => {
        const told = this.what;
        this.waiting = false;
        this.what = "";
        for (const view of this.views) view(told);
      });
    }

    /* Take a cumulative snapshot. Only lines that are new are parsed. */
    set(value) {
      if (!value || typeof value !== "object" || !Array.isArray(value.lanes)) return;
      const fresh = !this.value || this.value.run_id !== value.run_id;
      if (!fresh && value.rev < this.value.rev) return;
      if (fresh) { this.lanes = []; this.time = Infinity; this.pause(); }
      this.value = value;
      value.lanes.forEach((meta, i) => {
        const lane = this.lanes[i] ??= { steps: [], parsed: 0 };
        lane.meta = meta;
        const end = meta.log.lastIndexOf("\n") + 1;
        if (end <= lane.parsed) return;
        for (const line of meta.log.slice(lane.parsed, end).split("\n")) {
          if (!line) continue;
          const cells = JSON.parse(line), step = {};
          COLUMNS.forEach((name, c) => { step[name] = cells[c]; });
          lane.steps.push(step);
        }
        lane.parsed = end;
      });
      this.fresh = fresh;
      this.changed("data");
    }

    get active() { return !!this.value && ACTIVE.has(this.value.state); }
    get following() { return this.time === Infinity; }
    get end() { return Math.max(0, ...this.lanes.map((l) => (l.steps.length ? l.steps.at(-1).clock : 0))); }
    get now() { return Math.min(this.time, this.end); }

    /* How many steps of a lane are over at the time shown. */
    at(lane) {
      const { steps } = lane;
      if (this.following) return steps.length;
      let low = 0, high = steps.length;
      while (low < high) {
        const mid = (low + high) >> 1;
        if (steps[mid].clock <= this.time + 1e-9) low = mid + 1; else high = mid;
      }
      return low;
    }

    moments() {
      return [...new Set([0, ...this.lanes.flatMap((l) => l.steps.map((s) => s.clock))])].sort((a, b) => a - b);
    }

    seek(time) { this.time = Math.max(0, Math.min(time, this.end)); this.changed("time"); }
    follow() { this.pause(); this.time = Infinity; this.changed("time"); }

    /* To the next or previous step of any lane. */
    step(direction) {
      this.pause();
      const all = this.moments(), now = this.now;
      const to = direction > 0 ? all.find((t) => t > now + 1e-9) : all.filter((t) => t < now - 1e-9).at(-1);
      if (to !== undefined) this.seek(to);
    }

    toggle() { if (this.playing) this.pause(); else this.play(); }

    play() {
      if (!this.lanes.some((l) => l.steps.length)) return;
      if (this.now >= this.end) this.time = 0;
      this.playing = true;
      let last = performance.now();
      const tick = (stamp) => {
        if (!this.playing) return;
        const time = this.time + ((stamp - last) / 1000) * this.speed;
        last = stamp;
        if (time >= this.end && !this.active) { this.playing = false; this.time = Infinity; this.changed("time"); return; }
        this.seek(time);
        requestAnimationFrame(tick);
      };
      this.changed("time");
      requestAnimationFrame(tick);
    }

    pause() { if (this.playing) { this.playing = false; this.changed("time"); } }

    /* The measures of a lane after its first k steps; null where nothing is known yet. */
    measures(lane, k = this.at(lane)) {
      const last = k ? lane.steps[k - 1] : null;
      if (!last || !last.units) return null;
      let kept = 0, judged = 0;
      for (let i = 0; i < k; i++) { kept += lane.steps[i].kept; judged += lane.steps[i].judged; }
      const other = Math.max(0, last.clock - last.seconds - last.draftSeconds);
      return {
        steps: k, units: last.units, clock: last.clock, calls: last.calls, draftCalls: last.draftCalls,
        rows: last.rows, seconds: last.seconds, draftSeconds: last.draftSeconds, other, kept, judged,
        rate: last.units / (last.clock || 1), length: last.units / (last.calls || 1),
        cost: last.calls + this.ratio * last.draftCalls,
      };
    }

    /* Three ratios against lane 1, each per unit written: calls, modelled cost, measured time; at the moment shown, or of all. */
    speedups(lane, all = false) {
      const at = (l) => (all ? l.steps.length : this.at(l));
      const base = this.lanes[0] && this.measures(this.lanes[0], at(this.lanes[0])), mine = this.measures(lane, at(lane));
      if (!base || !mine || lane === this.lanes[0]) return null;
      const ratio = (name) => (base[name] / base.units) / (mine[name] / mine.units);
      return { calls: ratio("calls"), modelled: ratio("cost"), time: ratio("clock"), base, mine };
    }
  }

  const races = new Map();
  const race = (id) => { if (!races.has(id)) races.set(id, new Race(id)); return races.get(id); };

  /* h("div", {class: "a", onclick: f}, "text", node): elements without any HTML parsing. */
  function h(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === undefined || value === null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  }

  const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;
  const code = (c) => `\u2039U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u203a`;
  /* Characters that would be invisible or would reorder the line are shown by their code. */
  const visible = (text) => text.replace(HIDDEN, code);

  const number = (x, digits = 1) => (Number.isFinite(x) ? x.toFixed(digits) : "–");
  const times = (x) => (Number.isFinite(x) ? `×${x.toFixed(x < 10 ? 2 : 1)}` : "–");
  const percent = (x) => {
    if (!Number.isFinite(x)) return "–";
    return `${x > 0 && x < 0.01 ? (100 * x).toPrecision(1) : Math.round(100 * x)} %`;  // not "0 %" of what is there
  };
  const chance = (p) => (p === null || p === undefined ? "–" : p >= 0.0995 ? p.toFixed(3) : p.toPrecision(2));

  /* ---- actions that buttons outside the components use ---- */
  const visibleById = (id) => {
    const node = document.getElementById(id);
    return node && node.offsetParent !== null ? node : null;
  };
  const press = (id) => {
    const node = visibleById(id);
    const button = node && (node.matches("button") ? node : node.querySelector("button"));
    if (button && !button.disabled) { button.click(); return true; }
    return false;
  };
  const tab = () => [...races.keys(), "gallery"].find((id) => visibleById(`${id}-run`)) || null;

  let toastTimer = 0;
  function toast(text) {
    let node = document.getElementById("dl-toast");
    if (!node) { node = h("div", { id: "dl-toast", role: "status" }); document.body.append(node); }
    node.textContent = text;
    node.classList.add("is-shown");
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => node.classList.remove("is-shown"), 3500);
  }

  async function copyLink(link) {
    if (!link) return;
    const url = new URL(link, location.href).href;
    if (new URL(url).origin === location.origin) history.replaceState(null, "", url);
    try { await navigator.clipboard.writeText(url); toast("Link copied. It opens with these settings and runs nothing by itself."); }
    catch { toast("The link is in the address bar."); }
  }

  const HELP = [["Ctrl or ⌘ + Enter", "run"], ["Esc", "stop"], ["Space", "play or pause the replay"],
    ["← →", "one step back or forward"], ["Home End", "first step, newest step"], ["L", "copy link"], ["?", "this list"]];
  function help() {
    let dialog = document.getElementById("dl-help");
    if (!dialog) {
      const list = h("dl", {}, ...HELP.flatMap(([k, what]) => [h("dt", {}, k), h("dd", {}, what)]));
      const close = h("button", { class: "dl-button", onclick: () => dialog.close() }, "Close");
      dialog = h("dialog", { id: "dl-help", "aria-label": "Keyboard" }, h("h2", {}, "Keyboard"), list,
        h("p", {}, "On a token or a token grid: arrows move, the card follows."), close);
      document.body.append(dialog);
    }
    if (dialog.open) dialog.close(); else dialog.showModal();
  }

  const typing = (node) => !!node && (node.isContentEditable
    || (/^(INPUT|TEXTAREA|SELECT)$/.test(node.tagName) && !/^(button|checkbox|radio)$/.test(node.type || "")));

  function onKey(event) {
    const id = tab();
    if (!id || event.defaultPrevented || document.getElementById("dl-help")?.open) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      document.activeElement?.dispatchEvent(new Event("change", { bubbles: true }));
      if (press(`${id}-run`)) event.preventDefault();
      return;
    }
    if (event.key === "Escape") {
      if (event.target.getAttribute?.("aria-expanded") !== "true") press(`${id}-stop`);
      return;
    }
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const control = event.target.closest?.("button, a, summary, [role=button], [role=tab], [role=option], [role=radio], input, label");
    const the = races.get(id);
    if (event.key === "?") help();
    else if (event.key === "l" || event.key === "L") press(`${id}-link`);
    else if (control || !the) return;
    else if (event.key === " ") the.toggle();
    else if (event.key === "ArrowRight") the.step(1);
    else if (event.key === "ArrowLeft") the.step(-1);
    else if (event.key === "Home") { the.pause(); the.seek(0); }
    else if (event.key === "End") the.follow();
    else return;
    event.preventDefault();
  }
  document.addEventListener("keydown", onKey);

  /* A wide table in a frame of its own, which the keyboard can reach and scroll. */
  const scroller = (label, table) => h("div", { class: "dl-scroll", tabindex: "0", role: "region", "aria-label": label }, table);

  const SIGNS = ["○", "■", "▲", "◆"]; /* of the lanes, beside their colours */

  window.DecodingLab = { race, h, visible, number, times, percent, chance, press, toast, copyLink, help, scroller, SIGNS };
})();
