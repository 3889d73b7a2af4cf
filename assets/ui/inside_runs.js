/* Views of time: which model computed when. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.CallsView) return;
  const { h, set, svg, chart, number, percent } = lab;

  const NEAR = 24; /* steps in the close view */
  const PATTERNS = ["is-solid", "is-soft", "is-line", "is-dots", "is-soft", "is-line"];

  /* Roles that were called, drafters first, then the target and its parts. */
  function rolesOf(lane) {
    const roles = [...lab.contents(lane).roles];
    const weight = (role) => (role === "target" ? 1 : role.startsWith("target.") ? 2 : 0);
    return roles.sort((a, b) => weight(a) - weight(b) || a.localeCompare(b));
  }

  /* One row a role along the lane's clock; bars are the seconds inside its calls. */
  class CallsView {
    constructor() {
      this.near = true;
      this.caption = h("p", { class: "dl-in-caption" });
      this.buttons = [["near this step", true], ["whole run", false]].map(([text, near]) => h("button", { type: "button", "aria-pressed": String(near === this.near),
        onclick: () => { this.near = near; this.buttons.forEach((b, i) => b.setAttribute("aria-pressed", String((i === 0) === near))); this.again?.(); } }, text));
      this.tools = h("div", { class: "dl-segment", role: "group", "aria-label": "Part of the run" }, ...this.buttons);
      this.box = h("div", {});
      this.root = h("div", {}, h("div", { class: "dl-in-line" }, this.caption, this.tools), this.box, h("p", { class: "dl-in-hint" },
        "A trace holds sums for each step, so the calls of a step are drawn in the order drafter, target, rest; press a step to go to it."));
    }

    draw({ lane, k, width, color, seek, again }) {
      this.again = again;
      const roles = rolesOf(lane), { steps } = lane;
      this.tools.hidden = steps.length <= NEAR;
      const first = this.near ? Math.max(0, Math.min(k, steps.length) - NEAR) : 0, shown = steps.slice(first, k);
      const start = first ? steps[first - 1].clock : 0, end = shown.length ? shown.at(-1).clock : 1;
      const rows = [...roles, "outside calls"], left = Math.min(118, Math.max(64, 8 + 6.3 * Math.max(...rows.map((r) => r.length))));
      const height = 44 + 30 * rows.length, y = (i) => 12 + 30 * i;
      const c = chart({ width, height, left, x: [start, end], y: [0, 1], yticks: 0, yformat: () => "", xlabel: "lane compute time, seconds", label: "Calls of each model along the clock" });
      c.root.querySelectorAll(".dl-axes line").forEach((line) => line.remove());
      rows.forEach((role, i) => c.plot.append(svg("text", { x: left - 8, y: y(i) + 14, class: "dl-rowname" }, role)));
      let clock = start;
      shown.forEach((step, s) => {
        const group = svg("g", { class: "dl-step", "data-k": first + s + 1 });
        group.append(svg("rect", { x: c.X(clock), width: Math.max(1, c.X(step.clock) - c.X(clock)), y: 4, height: height - 42, class: `dl-catch${s % 2 ? " is-odd" : ""}` }));
        let at = clock;
        const block = (row, seconds, calls, kind) => {
          const each = seconds / Math.max(1, calls), w = c.X(at + each) - c.X(at), cut = w > 3 ? calls : 1;
          for (let n = 0; n < cut; n++) group.append(svg("rect", { x: c.X(at + (n * seconds) / cut), width: Math.max(0.7, (c.X(at + seconds) - c.X(at)) / cut - (cut > 1 || w > 3 ? 1 : 0)), y: y(row), height: 20, rx: 2, fill: color, class: `dl-call ${kind}` }));
          at += seconds;
        };
        let inside = 0;
        roles.forEach((role, row) => {
          const [calls, , seconds] = step.parts?.[role] || [0, 0, 0];
          if (calls) { block(row, seconds, calls, PATTERNS[role === "target" ? 0 : 1 + (row % 4)]); inside += seconds; }
        });
        const rest = step.clock - clock - inside;
        if (rest > 0) block(roles.length, rest, 1, "is-rest");
        c.plot.append(group);
        clock = step.clock;
      });
      c.root.addEventListener("click", (e) => { const at = e.target.closest(".dl-step"); if (at) seek(Number(at.dataset.k)); });
      this.box.replaceChildren(c.root);
      set(this.caption, summary(lane, k, roles));
    }
  }

  function summary(lane, k, roles) {
    const clock = k ? lane.steps[k - 1].clock : 0;
    const parts = roles.map((role) => {
      let calls = 0, rows = 0, seconds = 0;
      for (let s = 0; s < k; s++) { const p = lane.steps[s].parts?.[role]; if (p) { calls += p[0]; rows += p[1]; seconds += p[2]; } }
      return `${role}: ${calls} calls over ${number(rows / (calls || 1))} rows, ${number((1000 * seconds) / (calls || 1), 1)} ms each, ${percent(seconds / (clock || 1))} of the time`;
    });
    return `${parts.join("; ")}.`;
  }

  Object.assign(lab, { CallsView });
})();
