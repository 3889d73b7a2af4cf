/* Strips below a fan, on its axis of time: the calls and what each did to which steps, how wide the band is, and beside
   them how often a draft was accepted by its place. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.timeline) return;
  const { h, svg, path, percent, fanOf, widestOf, stretches, isNumber, CALL_FATES } = lab;

  const TALL = 86, WIDTH = 44; /* of the strip of calls, and of the strip of widths */
  const WORDS = { kept: "accepted", fixed: "corrected", bonus: "own draws", rejected: "rejected", unread: "unread" };

  /* One row a step, which is one call of the target: above what it wrote, below what it threw away, grey its drafts. */
  function timeline(body, fan, lane, k, X, seek) {
    const all = Math.max(1, lane.steps.length), row = Math.min(15, TALL / all), gap = row > 5 ? 1.5 : row > 3 ? 0.6 : 0;
    const wide = X(fan.horizon - 0.5), root = svg("svg", { width: wide + 8, height: TALL, class: "dl-calls", role: "img", "aria-label": story(lane, k) });
    lane.steps.slice(0, k).forEach((step, s) => {
      const flags = step.frame?.f || [], top = s * row, tall = Math.max(0.8, row - gap), judged = flags.some(([, , kept, , , no]) => kept + no);
      const group = svg("g", { class: `dl-call-row${s === k - 1 ? " is-new" : ""}`, "data-k": s + 1 }, svg("title", {}, sentence(step, s)));
      group.append(svg("rect", { x: 0, width: wide, y: top, height: row, class: "dl-catch" }));
      if (step.parts?.draft || lane.steps[s].draftCalls > (s ? lane.steps[s - 1].draftCalls : 0)) drafts(group, step, s, lane, flags, top, tall, X);
      for (const [at, size, ...counts] of flags) {
        const left = X(at - 0.5), room = X(at + size - 0.5) - left - (row > 5 ? 1 : 0);
        cell(group, counts.slice(0, 3), CALL_FATES.slice(0, 3), left, room, top + (judged ? 0.16 * tall : 0), judged ? 0.52 * tall : tall, fan.rows);
        if (judged) cell(group, counts.slice(3), CALL_FATES.slice(3), left, room, top + 0.7 * tall, 0.3 * tall, fan.rows);
      }
      root.append(group);
    });
    root.addEventListener("click", (e) => { const at = e.target.closest(".dl-call-row"); if (at) seek(Number(at.dataset.k)); });
    return root;
  }

  function cell(group, counts, fates, left, room, top, tall, rows) {
    let x = left;
    counts.forEach((n, i) => {
      if (!n) return;
      const wide = Math.max(0.7, (room * n) / rows);
      group.append(svg("rect", { x, width: wide, y: top, height: Math.max(0.7, tall), class: "dl-bar", "data-f": fates[i] }));
      x += wide;
    });
  }

  /* A thin grey line over what was drafted, in as many pieces as there were calls. */
  function drafts(group, step, s, lane, flags, top, tall, X) {
    const drafted = flags.filter(([, , kept, , , no, unread]) => kept + no + unread);
    if (!drafted.length) return;
    const calls = step.draftCalls - (s ? lane.steps[s - 1].draftCalls : 0);
    const first = X(drafted[0][0] - 0.5), last = X(drafted.at(-1)[0] + drafted.at(-1)[1] - 0.5), each = (last - first) / Math.max(1, calls);
    for (let n = 0; n < calls; n++) group.append(svg("rect", { x: first + n * each, width: Math.max(0.6, each - 1), y: top, height: Math.max(0.6, 0.12 * tall), class: "dl-bar", "data-f": "guess" }));
  }

  function sentence(step, s) {
    const sums = {};
    for (const [, , ...counts] of step.frame?.f || []) counts.forEach((n, i) => { if (n) sums[WORDS[CALL_FATES[i]]] = (sums[WORDS[CALL_FATES[i]]] || 0) + n; });
    const told = Object.entries(sums).map(([word, n]) => `${n} ${word}`).join(", ");
    return `call ${s + 1}: ${told || "nothing final yet"}${step.note ? `\n${step.note}` : ""}`;
  }
  const story = (lane, k) => `Calls and the steps they wrote. ${lane.steps.slice(Math.max(0, k - 4), k).map((step, i) => sentence(step, Math.max(0, k - 4) + i)).join("; ")}`;

  /* Width of the 80 percent band by step, with lane 1's beside it. */
  function widths(race, fan, X, color) {
    const most = widestOf(race) || 1, wide = X(fan.horizon - 0.5), Y = (y) => WIDTH - 3 - ((WIDTH - 8) * y) / most;
    const root = svg("svg", { width: wide + 8, height: WIDTH, class: "dl-widths", role: "img", "aria-label": widthStory(fan) });
    root.append(svg("line", { x1: 0, x2: wide, y1: Y(0), y2: Y(0), class: "dl-floor" }));
    const base = fanOf(race.lanes[0]), line = (of, attrs) => {
      const list = Array.from({ length: of.horizon }, (_, i) => of.width(i));
      for (const [a, b] of stretches(list)) root.append(svg("path", { d: path(Array.from({ length: b - a + 1 }, (_, i) => [X(a + i), Y(list[a + i])])), class: "dl-line", ...attrs }));
    };
    if (base && base !== fan) line(base, { class: "dl-line is-base" });
    line(fan, { stroke: color });
    return root;
  }
  function widthStory(fan) {
    const known = Array.from({ length: fan.horizon }, (_, i) => fan.width(i)).filter(isNumber);
    return known.length ? `Width of the 80 percent band: ${known[0].toPrecision(3)} at first, ${known.at(-1).toPrecision(3)} at last, ${Math.max(...known).toPrecision(3)} at most` : "No band yet";
  }

  /* Accepted drafts by place: bars measured, rings 2 Phi(-D / 2), both over the first k steps. */
  function places(fan, lane, k, wide, color) {
    const num = Math.min(8, fan.places.length), tall = TALL + WIDTH - 4;
    if (!num) return h("p", { class: "dl-strip-note" }, k ? "No drafts: every call writes what it says." : "");
    const told = figures(lane, k), left = 27, room = Math.max(20, wide - left - 8), bottom = tall - 14, Y = (y) => 6 + (bottom - 6) * (1 - y), each = room / num;
    const root = svg("svg", { width: wide, height: tall, class: "dl-places", role: "img", "aria-label": fan.places.slice(0, num).map(([kept, judged], i) => `draft ${i + 1}: ${percent(kept / judged)} accepted${told.bell[i] === undefined ? "" : `, the curve says ${percent(told.bell[i])}`}`).join("; ") });
    for (const y of [0, 0.5, 1]) root.append(svg("line", { x1: left, x2: left + room, y1: Y(y), y2: Y(y), class: "dl-floor" }), svg("text", { x: left - 4, y: Y(y) + 3.5, "text-anchor": "end" }, `${100 * y}%`));
    fan.places.slice(0, num).forEach(([kept, judged], i) => {
      const x = left + each * (i + 0.5), share = judged ? kept / judged : 0, bar = Math.min(22, 0.62 * each);
      root.append(svg("rect", { x: x - bar / 2, width: bar, y: Y(share), height: Y(0) - Y(share), fill: color, class: "dl-place-bar" }, svg("title", {}, `draft ${i + 1}: ${kept} of ${judged} accepted (${percent(share)})${told.bell[i] === undefined ? "" : `; 2Φ(−D/2) = ${percent(told.bell[i])}`}${told.chance[i] === undefined ? "" : `; mean chance ${percent(told.chance[i])}`}`)));
      if (told.bell[i] !== undefined) root.append(svg("circle", { cx: x, cy: Y(told.bell[i]), r: 3.4, class: "dl-ring" }));
      root.append(svg("text", { x, y: tall - 3, "text-anchor": "middle" }, String(i + 1)));
    });
    return root;
  }

  /* Means of the figures `bell k` and `chance k` over the first k steps, each step weighing its judged drafts. */
  function figures(lane, k) {
    const out = { bell: [], chance: [] };
    for (const name of Object.keys(out)) {
      const sums = [];
      for (const step of lane.steps.slice(0, k)) (step.frame?.k || []).forEach(([, judged], i) => {
        const value = step.figures?.[`${name} ${i + 1}`];
        if (!isNumber(value)) return;
        const sum = (sums[i] ??= [0, 0]);
        sum[0] += judged * value;
        sum[1] += judged;
      });
      sums.forEach(([total, n], i) => { if (n) out[name][i] = total / n; });
    }
    return out;
  }

  Object.assign(lab, { timeline, widths, places });
})();
