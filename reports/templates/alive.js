// What was alive at the peak of a phase: an icicle beside a table, and what the other meters read in that phase.

const COLOURS = 6; // classes like-1 to like-6 of the style sheet; further arrays stay grey
const MOSTLY = 0.9; // of a bar's bytes, for it to have the colour of an array
const LEAST_SHARE = 0.003; // of the width; what is narrower cannot be seen

const alive = {
  // `phase` is the one to begin with, where it is known; else the one with the highest peak.
  show(trace, phase) {
    this.trace = trace;
    const moments = trace.phases.map(({ phase, alive: groups, beside, peak }) => ({ name: phase, groups, beside, peak }));
    if (trace.refusal) {
      const peak = trace.refused.reduce((sum, [, , , each, count]) => sum + each * count, 0);
      moments.push({ name: "when memory ran out", groups: trace.refused, beside: [], peak });
    }
    this.moments = moments;
    const used = new Set(moments.flatMap(({ groups }) => groups.map((group) => this.array(group[5]))));
    this.arrays = trace.declared.filter((name) => used.has(name)).slice(0, COLOURS);
    byId("alive-point").textContent = trace.point;
    byId("alive-phases").replaceChildren(...moments.map(({ name, peak }, nth) => button(
      `${name}: ${bytesInWords(peak)}`, () => this.choose(nth), { "aria-pressed": "false", "data-phase": name })));
    byId("alive-body").hidden = false;
    const peaks = moments.map(({ peak }) => peak);
    const named = moments.findIndex(({ name, peak }) => name === phase && peak);
    const most = trace.refusal ? moments.length - 1 : peaks.indexOf(Math.max(...peaks));
    this.choose(named < 0 ? most : named);
  },

  // "1.00 x batch" is of the array batch.
  array: (like) => like.split(" x ").at(-1),

  choose(nth) {
    const moment = this.moment = this.moments[nth];
    if (!moment) return;
    [...byId("alive-phases").children].forEach((one, place) => one.setAttribute("aria-pressed", String(place === nth)));
    byId("alive-none").hidden = moment.peak > 0;
    byId("alive-parts").hidden = moment.peak === 0;
    this.legend(moment);
    this.root = this.tree(moment);
    this.zoom(this.root);
    this.table(moment);
    this.beside(moment);
  },

  // An array has one colour in all phases of a trace; those of this one are named.
  legend({ groups }) {
    const here = new Set(groups.map((group) => this.array(group[5])));
    byId("alive-legend").replaceChildren(...this.arrays.flatMap((name, nth) => (here.has(name) ? [element("li", {},
      element("span", { class: `swatch like-${nth + 1}` }), `as large as ${name}, or a multiple`)] : [])));
  },

  // Type, operation path and shape below the phase; a path of one way only is one node.
  tree({ name, groups, peak }) {
    const made = (label, parent) => ({ label, parent, bytes: 0, children: new Map(), of: {} });
    const root = made(name, null);
    const add = (steps, bytes, array) => {
      let node = root;
      for (const step of [null, ...steps]) {
        if (step !== null && !node.children.has(step)) node.children.set(step, made(step, node));
        if (step !== null) node = node.children.get(step);
        node.bytes += bytes;
        node.of[array] = (node.of[array] || 0) + bytes;
      }
    };
    for (const [op, shape, dtype, each, count, like] of groups) {
      const leaf = `${shape || "unknown shape"}${like ? `, ${like}` : ""}`;
      add([dtype || "unknown type", ...(op || "no operation named").split("/"), leaf], each * count, this.array(like));
    }
    if (peak > root.bytes) add(["not listed"], peak - root.bytes, "");
    return this.merged(root);
  },

  merged(node, depth = 0) {
    node.children = [...node.children.values()].map((child) => this.merged(child, depth + 1));
    node.children.sort((one, other) => other.bytes - one.bytes);
    const [only] = node.children;
    // The type and the shape stay levels of their own.
    if (depth > 1 && node.children.length === 1 && only.children.length) {
      node.label = `${node.label}/${only.label}`;
      node.children = only.children;
      for (const child of node.children) child.parent = node;
    }
    return node;
  },

  zoom(node, focused = false) {
    this.top = node;
    const place = byId("alive-icicle");
    const above = [];
    for (let up = node.parent; up; up = up.parent) above.unshift(up);
    const bars = above.map((one, depth) => this.bar(one, depth, 0, 1));
    const add = (one, depth, left) => {
      bars.push(this.bar(one, depth, left, one.bytes / node.bytes));
      let from = left;
      for (const child of one.children) {
        if (child.bytes / node.bytes >= LEAST_SHARE) add(child, depth + 1, from);
        from += child.bytes / node.bytes;
      }
    };
    if (node.bytes) add(node, above.length, 0);
    place.replaceChildren(...bars.map(({ made }) => made));
    place.style.height = `${Math.max(1, ...bars.map(({ depth }) => depth + 1)) * 30}px`;
    this.bars = bars;
    this.aim(node, focused);
  },

  bar(node, depth, left, width) {
    const share = (100 * node.bytes) / (this.root.bytes || 1);
    const place = this.arrays.findIndex((name) => node.of[name] >= MOSTLY * node.bytes);
    const said = `${node.label}, ${bytesInWords(node.bytes)}, ${grouped(share, 1)} %`;
    const made = element("div", { role: "treeitem", tabindex: -1, "aria-level": depth + 1, "aria-label": said, title: said,
      "aria-expanded": node.children.length ? "true" : null, "aria-selected": "false",
      class: `bar ${place < 0 ? "" : `like-${place + 1}`}`,
      onclick: () => this.zoom(node, true), onkeydown: (event) => this.key(event, node) }, `${node.label} ${bytesInWords(node.bytes)}`);
    Object.assign(made.style, { left: `${100 * left}%`, width: `${100 * width}%`, top: `${30 * depth}px` });
    return { made, node, depth };
  },

  // One bar can be reached with Tab; the arrows lead to the others.
  aim(node, focused) {
    for (const { made, node: other } of this.bars) {
      made.tabIndex = other === node ? 0 : -1;
      made.setAttribute("aria-selected", String(other === node));
      if (other === node && focused) made.focus();
    }
  },

  key(event, node) {
    const shown = new Set(this.bars.map((bar) => bar.node));
    const beside = node.parent ? node.parent.children.filter((one) => shown.has(one)) : [node];
    const next = {
      ArrowDown: node.children.find((one) => shown.has(one)), ArrowUp: node.parent,
      ArrowRight: beside[beside.indexOf(node) + 1], ArrowLeft: beside[beside.indexOf(node) - 1], Home: this.root,
    };
    if (event.key === "Enter" || event.key === " ") this.zoom(node, true);
    else if (event.key === "Escape") this.zoom(this.top.parent || this.root, true);
    else if (event.key in next) this.aim(next[event.key] || node, true);
    else return;
    event.preventDefault();
  },

  table({ name, groups }) {
    const text = (field, label, cells) => {
      const words = [...new Set(cells)];
      return { name: field, label, kind: "text", words, cells: cells.map((cell) => words.indexOf(cell)) };
    };
    const number = (field, label, kind, cells) => ({ name: field, label, kind, cells });
    const columns = [
      text("operation", "operation", groups.map(([op]) => op || "none named")),
      number("together", "together", "bytes", groups.map(([, , , each, count]) => each * count)),
      text("shape", "shape", groups.map(([, shape]) => shape || "unknown")),
      text("type", "type", groups.map(([, , dtype]) => dtype || "unknown")),
      number("count", "count", "whole", groups.map(([, , , , count]) => count)),
      number("each", "each", "bytes", groups.map(([, , , each]) => each)),
      text("like", "as large as", groups.map(([, , , , , like]) => like)),
    ];
    const label = `Alive on the device at the peak of ${name}`;
    new DataTable(byId("alive-table"), { columns, count: groups.length }, { name: "kinds", label, filtered: false }).show({ sort: "-together" });
  },

  // Device and host meters of the untraced runs of this point, in the same phase.
  beside({ name, beside }) {
    const amount = (value) => element("td", { class: "amount" }, value === null ? "unavailable" : bytesInWords(value));
    const rows = beside.map(([meter, start, peak, end, kind]) => element("tr", {},
      element("th", { scope: "row" }, meter), amount(start), amount(peak), amount(end), element("td", {}, kind)));
    const heads = ["meter", "start", "peak", "end", "kind of number"].map((head, nth) => element("th",
      { scope: "col", class: nth > 0 && nth < 4 ? "amount" : null }, head));
    const label = `Device and host in ${name}, by the runs that were not traced, with what was there before the first phase`;
    const table = element("table", {}, element("caption", {}, label),
      element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
    byId("alive-beside").replaceChildren(...(rows.length
      ? [element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table)] : []));
  },
};
