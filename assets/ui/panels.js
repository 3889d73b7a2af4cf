/* Plots by plotly.js of the installed plotly, in the colours of the page: what every view with plots shares. */
(() => {
  "use strict";
  const lab = window.DecodingLab;
  if (!lab || lab.Panels) return;
  const { h } = lab;

  const EVERY = 160;
  const TOUCH = matchMedia("(hover: none)").matches; /* there a finger on a plot scrolls the page, and nothing lies over the data */
  const MARKERS = ["circle-open", "square", "triangle-up", "diamond"], DASHES = ["dash", "solid", "dot", "dashdot"];

  let loading = null;
  function plotly(url) {
    if (window.__plotly4) return Promise.resolve(window.__plotly4);
    loading ??= new Promise((resolve, reject) => {
      const script = h("script", { src: url, async: true });
      script.onload = () => { window.__plotly4 ??= window.Plotly; resolve(window.__plotly4); };
      script.onerror = () => { loading = null; reject(new Error("plotly.js could not be loaded")); };
      document.head.append(script);
    });
    return loading;
  }

  function plotTheme(root) {
    const css = getComputedStyle(root), get = (name) => css.getPropertyValue(name).trim();
    return { text: get("--body-text-color"), quiet: get("--body-text-color-subdued"), grid: get("--border-color-primary"),
      card: get("--dl-card") || "#fff", font: css.fontFamily, lanes: [1, 2, 3, 4].map((i) => get(`--dl-lane-${i}`)) };
  }

  function plotLayout({ text, quiet, grid, font, card }, extra, uirevision, datarevision) {
    const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, tickcolor: grid, tickfont: { size: 11, color: quiet }, automargin: true,
      title: { font: { size: 11, color: quiet }, standoff: 6 } };
    const merge = (more) => ({ ...axis, ...more, title: { ...axis.title, text: more?.text || "" } });
    return { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: font, color: text, size: 11 },
      margin: { l: 40, r: 8, t: 6, b: 34 }, hovermode: "closest", dragmode: TOUCH ? false : "zoom", uirevision, datarevision, showlegend: false,
      hoverlabel: { bgcolor: card, bordercolor: grid, font: { color: text, family: font, size: 12 } }, bargap: 0.3, ...extra,
      xaxis: merge(extra.xaxis), yaxis: merge(extra.yaxis) };
  }

  const CONFIG = { displaylogo: false, responsive: true, displayModeBar: TOUCH ? false : "hover", modeBarButtons: [["toImage", "resetScale2d"]] };

  /* Panels of plots: {name: {title, views: {view: label}}}. A subclass draws `this[name](view)` and says what `run` it shows.

     plotly.js is fetched when the panels come into sight and there is something to draw. */
  class Panels {
    constructor(element, panels, url, label) {
      Object.assign(this, { url, view: {}, panels: {}, rev: 0 });
      const grid = h("div", { class: "dl-plots" });
      for (const [name, { title, views }] of Object.entries(panels)) {
        this.view[name] = Object.keys(views)[0];
        const buttons = Object.entries(views).map(([view, text]) => h("button", { type: "button", "data-view": view,
          "aria-pressed": String(view === this.view[name]), onclick: () => this.choose(name, view) }, text));
        const plot = h("div", { class: "dl-plot", role: "figure", "aria-label": `${title}; the table below has the numbers` });
        this.panels[name] = { plot, buttons };
        const segment = buttons.length > 1 ? h("div", { class: "dl-segment", role: "group", "aria-label": `${title} shown as` }, ...buttons) : null;
        grid.append(h("section", { class: "dl-panel", "data-panel": name }, h("header", {}, h("h3", {}, title), segment), plot));
      }
      this.grid = grid;
      this.root = h("section", { class: "dl-plots-root", "aria-label": label }, grid);
      element.replaceChildren(this.root);
      new MutationObserver(() => { this.style = null; this.later(); }).observe(document.body, { attributes: true, attributeFilter: ["class"] });
      new IntersectionObserver((entries) => {
        this.seen = entries.some((e) => e.isIntersecting);
        if (this.seen) { this.asked = !!this.lib; this.later(); } /* what could not be fetched is asked for again */
      }, { rootMargin: "120px" }).observe(element);
      new ResizeObserver(() => this.later()).observe(element);
    }

    choose(name, view) {
      this.view[name] = view;
      for (const b of this.panels[name].buttons) b.setAttribute("aria-pressed", String(b.dataset.view === view));
      this.later();
    }

    /* What is shown, null where there is nothing yet: a new one forgets how the plots were zoomed. */
    get run() { return null; }

    load() {
      if (this.lib || this.asked) return;
      this.asked = true;
      const idle = window.requestIdleCallback || ((f) => setTimeout(f, 50));
      idle(() => plotly(this.url).then((lib) => { this.lib = lib; this.later(); }).catch((error) => {
        for (const { plot } of Object.values(this.panels)) plot.textContent = `${error.message}; the table below has the numbers.`;
      }), { timeout: 800 });
    }

    later() {
      if (this.timer) return;
      const wait = Math.max(0, EVERY - (performance.now() - (this.last || 0)));
      this.timer = setTimeout(() => requestAnimationFrame(() => { this.timer = 0; this.last = performance.now(); this.draw(); }), wait);
    }

    draw() {
      if (this.run === null || !this.seen) return;
      this.load();
      if (!this.lib || this.grid.offsetParent === null) return;
      this.style ??= plotTheme(this.root);
      this.rev += 1;
      for (const name of Object.keys(this.panels)) {
        const { data, layout } = this[name](this.view[name]);
        this.lib.react(this.panels[name].plot, data, plotLayout(this.style, layout, `${name}-${this.view[name]}-${this.run}`, this.rev), CONFIG);
      }
    }

    color(i) { return this.style.lanes[i % 4]; }
    stroke(i) { return { color: this.color(i), width: 2, dash: DASHES[i % 4] }; }
    marker(i, size = 8) { return { symbol: MARKERS[i % 4], color: this.color(i), size }; }
    empty(text) {
      return { data: [], layout: { xaxis: { visible: false }, yaxis: { visible: false },
        annotations: [{ text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { color: this.style.quiet } }] } };
    }
  }

  /* Panels of one value from Python, which comes again and again as it grows; a subclass tells its head in `told()`. */
  class ValuePanels extends Panels {
    constructor(...args) {
      super(...args);
      this.value = null;
    }

    get run() { return this.value ? this.value.run_id : null; }

    take(value) {
      if (!value || typeof value !== "object") return;
      if (this.value && this.value.run_id === value.run_id && value.rev < this.value.rev) return;
      this.value = value;
      this.told();
      this.later();
    }
  }

  /* plotly reads a little HTML in labels */
  const plainLabel = (text) => text.replace(/[<>&%]/g, " ");

  Object.assign(lab, { Panels, ValuePanels, plainLabel, MARKERS });
})();
