/* A forecast at any moment: what a lane holds after k steps, from the frames of its steps. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.fanOf) return;

  const QUANTILES = 7, LOW = 1, MIDDLE = 3, HIGH = 5; /* 5, 10, 25, 50, 75, 90, 95 percent */
  const BANDS = [[0, 6, "90"], [1, 5, "80"], [2, 4, "50"]]; /* from the widest to the narrowest */
  const FATES = ["kept", "fixed", "bonus", "rejected", "unread"]; /* in the order of a call's flags */
  const STROKES = 60; /* refused drafts that stay on the chart */
  const isNumber = (x) => x !== null && x !== undefined;

  class Fan {
    constructor(lane) {
      const { horizon, context, truth, ds } = lane.meta.picture;
      Object.assign(this, { lane, horizon, context, truth, ds, seen: 0, low: Infinity, high: -Infinity, widest: 0, rows: 1 });
      this.reset();
    }

    reset() {
      Object.assign(this, { k: 0, refused: [], places: [], counts: {}, paths: new Map() });
      this.q = Array.from({ length: QUANTILES }, () => new Array(this.horizon).fill(null));
    }

    /* The forecast after k steps. */
    to(k) {
      if (k < this.k) this.reset();
      for (; this.k < k; this.k++) this.take(this.lane.steps[this.k].frame || {}, this.k);
      return this;
    }

    take({ c, q, p, r, f, k }, step) {
      (q || []).forEach((values, level) => values.forEach((y, i) => { this.q[level][c + i] = y; }));
      for (const [row, at, values] of p || []) {
        if (!this.paths.has(row)) this.paths.set(row, new Array(this.horizon).fill(null));
        values.forEach((y, i) => { this.paths.get(row)[at + i] = y; });
      }
      for (const [at, values] of r || []) this.refused.push({ at, values, step });
      if (this.refused.length > STROKES) this.refused.splice(0, this.refused.length - STROKES);
      for (const [, , ...counts] of f || []) counts.forEach((n, i) => { this.counts[FATES[i]] = (this.counts[FATES[i]] || 0) + n; });
      (k || []).forEach(([kept, judged], i) => { const place = (this.places[i] ??= [0, 0]); place[0] += kept; place[1] += judged; });
    }

    /* Lowest and highest value of the bands of all steps that are known, how many rows there are, and the widest band. */
    look() {
      for (; this.seen < this.lane.steps.length; this.seen++) {
        const { q, f } = this.lane.steps[this.seen].frame || {};
        (q?.[MIDDLE] || []).forEach((middle, i) => {
          for (const level of [LOW, MIDDLE, HIGH]) {
            const y = q[level][i];
            if (isNumber(y)) { this.low = Math.min(this.low, y); this.high = Math.max(this.high, y); }
          }
          if (isNumber(q[LOW][i]) && isNumber(q[HIGH][i])) this.widest = Math.max(this.widest, q[HIGH][i] - q[LOW][i]);
        });
        for (const [, , kept, fixed, bonus] of f || []) this.rows = Math.max(this.rows, kept + fixed + bonus);
      }
      return this;
    }

    width(i) { return isNumber(this.q[LOW][i]) && isNumber(this.q[HIGH][i]) ? this.q[HIGH][i] - this.q[LOW][i] : null; }

    /* How many values of the past a chart shows. */
    get past() { return Math.min(this.context.length, Math.max(24, Math.round(1.05 * this.horizon))); }
  }

  const fanOf = (lane) => (lane?.meta?.picture?.horizon ? (lane.fan ??= new Fan(lane)) : null);

  /* One scale of values for all lanes: what is known of past and truth, and the bands, cut where they run away. */
  function rangeOf(race) {
    const fans = race.lanes.map(fanOf).filter(Boolean);
    if (!fans.length) return null;
    const given = fans.flatMap((fan) => [...fan.context.slice(-fan.past), ...fan.truth]).filter(isNumber);
    const [low, high] = given.reduce(([a, b], y) => [Math.min(a, y), Math.max(b, y)], [Infinity, -Infinity]), span = high - low || Math.abs(high) || 1;
    for (const fan of fans) fan.look();
    const least = Math.max(low - span, Math.min(low, ...fans.map((f) => f.low))), most = Math.min(high + span, Math.max(high, ...fans.map((f) => f.high)));
    const room = 0.04 * (most - least || 1);
    return [least - room, most + room];
  }

  const widestOf = (race) => Math.max(0, ...race.lanes.map(fanOf).filter(Boolean).map((fan) => fan.look().widest));

  /* Unbroken stretches of a list: [[first, last], ...]. */
  function stretches(list) {
    const out = [];
    list.forEach((y, i) => {
      if (!isNumber(y)) return;
      if (out.length && out.at(-1)[1] === i - 1) out.at(-1)[1] = i;
      else out.push([i, i]);
    });
    return out;
  }

  /* A date as a tick shows it. */
  function dater(ds) {
    if (!/^\d{4}-\d{2}-\d{2}/.test(ds[0])) return (text) => text;
    if (ds[0].length > 10) return (text) => text.slice(5, 16);
    if (ds.every((text) => text.endsWith("-01-01"))) return (text) => text.slice(0, 4);
    if (ds.every((text) => text.endsWith("-01"))) return (text) => text.slice(0, 7);
    return (text) => text;
  }

  Object.assign(lab, { fanOf, rangeOf, widestOf, stretches, dater, isNumber, BANDS, CALL_FATES: FATES, MIDDLE });
})();
