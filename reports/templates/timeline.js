// The timeline of one traced point, and below it that of the code it is compared with.

const SERIES = ["allocated", "requested", "difference", "limit"]; // later ones are drawn on top
const LABELS = {
  allocated: "allocated", requested: "requested", difference: "allocated - requested (fragmentation)", limit: "limit of the device",
};
const NEAR = 4; // the limit is drawn from the start where the peak comes within a quarter of it
const STEPS = Array.from({ length: 45 }, (_, power) => 2 ** power); // ticks of the axis of bytes

const timeline = {
  names: new Set(),
  plots: [],
  byEvent: false,
  point: null,

  has(point) {
    return this.names.has(point);
  },

  async start() {
    const { traces, phases, note } = await unpacked("data-traces");
    Object.assign(this, { traces, phases });
    this.names = new Set(traces.map((trace) => trace.point));
    this.select = byId("timeline-point");
    this.select.append(...[...this.names].map((name) => element("option", { value: name }, name)));
    this.select.addEventListener("change", () => this.choose(this.select.value));
    byId("timeline-by").addEventListener("change", ({ target }) => this.order(target.value === "event"));
    byId("timeline-left-out").textContent = note;
    byId("timeline-body").hidden = false;
    for (const place of document.querySelectorAll("[data-timeline]")) this.lead(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.resize()).observe(byId("timeline-plots"));
  },

  // A place in the page from which a link leads to the timeline of a point, if it has one.
  lead(place) {
    const point = place.dataset.timeline;
    place.hidden = !this.has(point);
    const values = { point, ...(this.phases[point] ? { phase: this.phases[point] } : {}) };
    place.querySelector("a").href = `#timeline?${new URLSearchParams(values)}`;
  },

  async restore(values) {
    const named = values.get("point");
    this.byEvent = values.get("by") === "event";
    byId("timeline-by").value = this.byEvent ? "event" : "time";
    await this.load(this.has(named) ? named : this.traces[0].point);
    const [now] = this.sides;
    const phase = now.phases.find((one) => one.phase === values.get("phase"));
    if (phase) this.toPeak(0, now, phase);
  },

  async choose(point) {
    await this.load(point);
    this.remember();
  },

  order(byEvent) {
    this.byEvent = byEvent;
    this.draw();
    this.remember();
  },

  remember(phase = "") {
    const values = [["point", this.point], ["by", this.byEvent ? "event" : ""], ["phase", phase]];
    setAddress("timeline", values.filter(([, value]) => value));
  },

  async load(point) {
    const mine = this.traces.filter((trace) => trace.point === point);
    const contents = await Promise.all(mine.map(async ({ id, side }) => ({ side, ...(await unpacked(id)) })));
    this.sides = contents.map((trace) => ({ ...trace, ...this.columns(trace) }));
    this.point = this.select.value = point;
    this.shows = Object.fromEntries(SERIES.map((name) => [name, name !== "limit" || this.isNear()]));
    this.draw();
    alive.show(this.sides[0], this.phases[point]);
  },

  // The columns as they were; amounts are over what was in use before the recording began.
  columns(trace) {
    const requested = sums(trace.requested);
    const allocated = sums(trace.allocator).map((amount) => amount - trace.base);
    const at = trace.at ? sums(trace.at) : requested.map((_, place) => place);
    return { times: sums(trace.time), places: at, amounts: { requested, allocated } };
  },

  isNear() {
    return this.sides.some(({ phases, limit, refusal }) => limit !== null
      && (refusal || phases.some((phase) => phase.allocator_peak * NEAR >= limit)));
  },

  // What uPlot draws: x, then the series; before the first event nothing was requested, after the last all stays.
  table({ phases, times, places, amounts, events, base, limit }) {
    const first = phases.length ? Math.min(phases[0].times[0], times[0] ?? Infinity) : times[0] ?? 0;
    const last = Math.max(phases.at(-1)?.times[2] ?? 0, times.at(-1) ?? 0);
    const x = this.byEvent ? [0, ...places.map((place) => place + 1), events + 1] : [first, ...times, last].map((at) => at / 1e6);
    const [allocated, requested] = SERIES.slice(0, 2).map((name) => [0, ...amounts[name], amounts[name].at(-1) ?? 0]);
    const difference = allocated.map((amount, place) => amount - requested[place]);
    const line = x.map(() => (limit === null ? null : limit - base));
    return [x, allocated, requested, difference, line];
  },

  // Where a phase lies on the x axis.
  edges(phase) {
    if (this.byEvent) return phase.span.map((place) => place + 0.5);
    return [phase.times[0] / 1e6, phase.times[2] / 1e6];
  },

  draw() {
    if (!this.sides) return;
    for (const plot of this.plots) plot.destroy();
    const place = byId("timeline-plots");
    place.replaceChildren();
    this.tables = this.sides.map((side) => this.table(side));
    const ends = this.tables.flatMap(([x]) => [x[0], x.at(-1)]);
    this.whole = { min: Math.min(...ends), max: Math.max(...ends) };
    this.range = this.whole;
    this.at = null;
    this.plots = this.sides.map((side, nth) => this.plot(side, this.tables[nth], place));
    this.controls();
    this.notes();
  },

  plot(side, data, place) {
    const colours = getComputedStyle(document.documentElement);
    const colour = (name) => colours.getPropertyValue(`--${name}`).trim();
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line") } };
    const words = side.side === "now" ? "" : "The code it is compared with: ";
    const box = element("div", { class: "plot", tabindex: 0, role: "group", "data-side": side.side,
      "aria-label": `${words}timeline of ${side.point}. Arrow keys move the cursor, plus and minus zoom, Escape shows all.`,
      onkeydown: (event) => this.key(event, plot) });
    place.append(element("h3", { hidden: this.sides.length === 1 }, side.side === "now" ? "now" : "then"), box);
    const stepped = uPlot.paths.stepped({ align: 1 });
    const series = SERIES.map((name) => ({ label: name, stroke: colour(name), show: this.shows[name], paths: stepped,
      width: name === "requested" ? 1.75 : 1.25, fill: name === "requested" ? colour("requested-fill") : undefined,
      dash: name === "limit" ? [6, 4] : undefined, points: { show: false } }));
    const plot = new uPlot({
      width: Math.max(box.clientWidth, 200), height: 280, legend: { show: false }, series: [{}, ...series],
      scales: { x: { time: false, range: () => [this.range.min, this.range.max] },
        y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(1, (high ?? 1) * 1.12)] } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((tick) => (this.byEvent ? grouped(tick) : `${+tick.toFixed(6)} s`)) },
        { ...axis, size: 78, incrs: STEPS, values: (_, ticks) => ticks.map(bytesInWords) }],
      cursor: { drag: { x: true, y: false, setScale: false }, y: false,
        sync: { key: "timeline", setSeries: false, filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
        bind: { dblclick: () => () => this.zoom(this.whole) } },
      hooks: { drawClear: [(one) => this.bands(one, side, colour)], setCursor: [(one) => this.tell(one, side)],
        setSelect: [(one) => this.selected(one)] },
    }, data, box);
    return plot;
  },

  // Phases as bands behind the curves, each with its name where there is room for it.
  bands({ ctx, bbox, valToPos }, side, colour) {
    ctx.save();
    ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
    Object.assign(ctx, { textBaseline: "top", textAlign: "left" });
    side.phases.forEach((phase, nth) => {
      const [from, to] = this.edges(phase).map((x) => valToPos(x, "x", true));
      const [left, right] = [Math.max(from, bbox.left), Math.min(to, bbox.left + bbox.width)];
      if (right <= left) return;
      ctx.fillStyle = colour(nth % 2 ? "band" : "band-other");
      ctx.fillRect(left, bbox.top, right - left, bbox.height);
      ctx.fillStyle = colour("quiet");
      const room = right - left - 8 * devicePixelRatio;
      if (ctx.measureText(phase.phase).width <= room) ctx.fillText(phase.phase, left + 4 * devicePixelRatio, bbox.top + 4 * devicePixelRatio);
    });
    ctx.restore();
  },

  selected(plot) {
    const { left, width } = plot.select;
    if (width < 2) return;
    const [min, max] = [left, left + width].map((at) => plot.posToVal(at, "x"));
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.zoom({ min, max });
  },

  zoom({ min, max }) {
    if (max <= min) return;
    this.range = { min: Math.max(min, this.whole.min), max: Math.min(max, this.whole.max) };
    for (const plot of this.plots) plot.setScale("x", this.range);
    byId("timeline-whole").disabled = this.range.min === this.whole.min && this.range.max === this.whole.max;
  },

  // Values under the cursor.
  tell(plot, side) {
    const said = this.said(plot, side, plot.cursor.idx);
    if (!said || this.moving) return;
    this.at = null;
    byId("timeline-values").textContent = said;
  },

  said({ data }, side, place) {
    if (place === null || place === undefined) return "";
    const x = data[0][place];
    const where = this.byEvent ? `event ${grouped(Math.min(x, side.events))}` : `${grouped(x, 6)} s`;
    const phase = side.phases.find((one) => this.edges(one)[0] <= x && x <= this.edges(one)[1]);
    const amounts = SERIES.slice(0, 3).map((name, nth) => `${name} ${bytesInWords(data[nth + 1][place])}`);
    return `${side.side === "now" ? "" : "then, "}${where}${phase ? `, ${phase.phase}` : ""}: ${amounts.join(", ")}`;
  },

  // The place of the highest requested amount in a phase, among the rows of the table.
  highest(side, data, phase) {
    const [first, last] = phase.span;
    const requested = data[SERIES.indexOf("requested") + 1];
    let best = -1;
    side.places.forEach((place, nth) => {
      if (place >= first && place < last && (best < 0 || requested[nth + 1] > requested[best])) best = nth + 1;
    });
    return best;
  },

  toPeak(nth, side, phase) {
    const [from, to] = this.edges(phase);
    const data = this.tables[nth];
    const place = this.highest(side, data, phase);
    const room = (to - from) * 0.08 || 1e-6;
    this.zoom({ min: from - room, max: to + room });
    const none = `${phase.phase}: nothing was allocated or freed`;
    if (place >= 0) this.pointAt(this.plots[nth], place);
    byId("timeline-said").textContent = place < 0 ? none : this.said(this.plots[nth], side, place);
    if (nth === 0) alive.choose(side.phases.indexOf(phase));
  },

  // The cursor at a row of the table; once the new range is drawn, which uPlot leaves to a later moment.
  pointAt(plot, place) {
    requestAnimationFrame(() => {
      const [left, top] = [plot.valToPos(plot.data[0][place], "x"), plot.valToPos(plot.data[1][place], "y")];
      this.moving = true; // by us, and not by a hand
      plot.setCursor({ left, top });
      this.moving = false;
      this.at = place;
      byId("timeline-values").textContent = this.said(plot, this.sides[this.plots.indexOf(plot)], place);
    });
  },

  key(event, plot) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const factor = { "+": 0.5, "-": 2 }[event.key];
    const { min, max } = this.range;
    const at = this.at ?? plot.cursor.idx ?? plot.data[0].findIndex((x) => x >= min);
    if (step) {
      const place = Math.min(Math.max(at + step, 0), plot.data[0].length - 1);
      this.pointAt(plot, place);
      byId("timeline-said").textContent = this.said(plot, this.sides[this.plots.indexOf(plot)], place);
    } else if (factor) {
      const middle = plot.data[0][at] ?? (min + max) / 2;
      this.zoom({ min: middle - (middle - min) * factor, max: middle + (max - middle) * factor });
    } else if (event.key === "Escape") this.zoom(this.whole);
    else return;
    event.preventDefault();
  },

  controls() {
    byId("timeline-whole").onclick = () => this.zoom(this.whole);
    byId("timeline-whole").disabled = true;
    byId("timeline-series").replaceChildren(...SERIES.filter((name) => name !== "limit" || this.sides[0].limit !== null).map((name) => {
      const onchange = ({ target }) => {
        this.shows[name] = target.checked;
        for (const plot of this.plots) plot.setSeries(SERIES.indexOf(name) + 1, { show: target.checked });
      };
      const box = element("input", { type: "checkbox", checked: this.shows[name], onchange, "data-series": name });
      return element("label", {}, box, element("span", { class: `swatch ${name}` }), LABELS[name]);
    }));
    byId("timeline-peaks").replaceChildren(...this.sides.flatMap((side, nth) => side.phases.map((phase) => button(
      `${nth ? "then, " : ""}${phase.phase}: ${bytesInWords(phase.peak)}`, () => {
        this.toPeak(nth, side, phase);
        this.remember(nth ? "" : phase.phase);
      }, { "data-phase": phase.phase, "data-side": side.side },
    ))));
  },

  notes() {
    const [{ events, places, base, limit, refusal }] = this.sides;
    const drawn = places.length === events ? `All ${grouped(events)} events are drawn.`
      : `${grouped(places.length)} of ${grouped(events)} events are drawn; the highest and the lowest of every stretch are among them, so each peak is exact.`;
    const said = [`Exact: every allocation and deallocation on the device was recorded. ${drawn} Times are to the microsecond.`];
    if (base) said.push(`Amounts are over the ${bytesInWords(base)} that were in use before the recording began.`);
    if (limit !== null) said.push(`The limit is ${bytesInWords(limit)}${base ? ", drawn less what was in use before" : ""}.`);
    if (refusal) said.push(refusal);
    byId("timeline-notes").textContent = said.join(" ");
  },

  resize() {
    for (const plot of this.plots) {
      const width = plot.root.parentElement.clientWidth;
      if (width > 0 && width !== plot.width) plot.setSize({ width, height: plot.height });
    }
  },
};
