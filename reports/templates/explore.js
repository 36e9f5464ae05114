// Explore: readings, checks, runs and fits, one table at a time, with all that is chosen in the address.

const TABLES = {
  readings: "What every meter read in every phase of every run",
  checks: "Every check, those that hold too",
  runs: "Every run and how it ended",
  fits: "Every fit of bytes against size",
};
const FILTER = "f.";

const explore = {
  tables: {},

  async start() {
    this.tabs = byId("explore-tabs");
    this.search = byId("explore-search");
    for (const [name, label] of Object.entries(TABLES)) {
      this.tabs.append(button(name, () => this.choose(name), { "aria-pressed": "false", title: label, "data-table": name }));
    }
    this.search.addEventListener("input", () => this.table.show({ q: this.search.value, page: 1 }));
    byId("explore-csv").addEventListener("click", () => this.save());
    byId("explore-clear").addEventListener("click", () => this.table.show({ q: "", sort: "", page: 1, filters: {} }));
    byId("explore-body").hidden = false;
  },

  async open(name) {
    if (!this.tables[name]) {
      const place = element("div");
      byId("explore-table").append(place);
      const data = await unpacked(`data-${name}`);
      this.tables[name] ||= new DataTable(place, data, {
        name, label: TABLES[name], told: (table) => this.told(table), cell: (row, column) => this.cell(name, row, column),
      });
    }
    this.table = this.tables[name];
    for (const [other, table] of Object.entries(this.tables)) table.place.hidden = other !== name;
    for (const tab of this.tabs.children) tab.setAttribute("aria-pressed", String(tab.dataset.table === name));
    return this.table;
  },

  async choose(name) {
    (await this.open(name)).show();
  },

  // Points lead to their timeline, checks to themselves.
  cell(name, row, column) {
    if (column.name !== "anchor" && column.name !== "point") return null;
    const text = column.words[column.cells[row]];
    if (column.name === "anchor") return element("a", { href: `#${text}`, "data-anchor": text }, `#${text}`);
    return timeline.has(text) ? element("a", { href: `#timeline?point=${encodeURIComponent(text)}` }, text) : null;
  },

  told(table) {
    if (this.search.value !== table.state.q) this.search.value = table.state.q;
    if (this.quiet) return;
    const { q, sort, page, filters } = table.state;
    const chosen = Object.entries(filters).map(([name, typed]) => [`${FILTER}${name}`, typed]);
    const values = [["table", table.name], ["q", q], ["sort", sort], ["page", page === 1 ? "" : page], ...chosen];
    setAddress("explore", values.filter(([, value]) => value !== ""));
  },

  // What an address says: the table, and what is chosen in it.
  async restore(values) {
    const named = values.get("table");
    const table = await this.open(named in TABLES ? named : "readings");
    const chosen = [...values].filter(([name]) => name.startsWith(FILTER));
    await this.still(() => table.show({
      q: values.get("q") || "", sort: values.get("sort") || "", page: Number(values.get("page")) || 1,
      filters: Object.fromEntries(chosen.map(([name, typed]) => [name.slice(FILTER.length), typed])),
    }));
  },

  async still(change) {
    this.quiet = true;
    try {
      await change();
    } finally {
      this.quiet = false;
    }
  },

  // Show the check that a permalink names, with those before and after it; where there is none, say so.
  async find(anchor) {
    const table = await this.open("checks");
    const column = table.columns.get("anchor");
    const row = column.cells.findIndex((place) => column.words[place] === anchor);
    if (row < 0) {
      await this.still(() => table.show());
      table.status.prepend("The link leads to no check of this run. ");
      return;
    }
    await this.still(() => table.show({ q: "", sort: "", filters: {}, page: Math.floor(row / ROWS_AT_A_TIME) + 1 }));
    const found = table.body.querySelector(`[data-row="${row}"]`);
    found.classList.add("found");
    found.tabIndex = -1;
    found.scrollIntoView({ block: "center" });
    found.focus({ preventScroll: true });
  },

  save() {
    const href = URL.createObjectURL(new Blob([this.table.csv()], { type: "text/csv" }));
    element("a", { href, download: `${this.table.name}.csv` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  },
};
