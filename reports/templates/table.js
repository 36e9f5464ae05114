// A table that can be sorted, searched, filtered, paged and saved. Rows are numbers of rows in the data.

const ROWS_AT_A_TIME = 200;
const MOST_CHOICES = 40; // distinct texts of a column that are offered as a list
const LONG = { th: 60, td: 40 }; // letters after which a cell may break into lines
const LONGER = 160; // letters of a text that would take too many lines
const HINTS = { text: "contains", bytes: "> 4 MiB", whole: "> 10", seconds: "> 1 s", amount: "> 512" };

class DataTable {
  // `place` is the element it fills; `told` is called after every change; `cell` may make another cell.
  constructor(place, data, { name, label, told = () => {}, cell = () => null, filtered = true }) {
    Object.assign(this, { place, data, name, label, told, cell, filtered });
    this.columns = new Map(data.columns.map((column) => [column.name, column]));
    this.state = { q: "", sort: "", page: 1, filters: {} };
    this.build();
  }

  text(row, column) {
    if (column.kind === "text") return column.words[column.cells[row]];
    return inWords(column.cells[row], column.kind, this.unit(row));
  }

  unit(row) {
    const column = this.columns.get("unit");
    return column ? column.words[column.cells[row]] : "";
  }

  // -- which rows, in which order

  // Whether a row passes what was typed above a column: a text in it, or "> 4 MiB".
  test(column, typed) {
    const compared = /^(<=|>=|<|>|=)\s*(.+)$/.exec(typed.trim());
    if (column.kind !== "text" && compared && !Number.isNaN(numberOf(compared[2]))) {
      const limit = numberOf(compared[2]);
      const holds = {
        "<": (value) => value < limit, "<=": (value) => value <= limit, "=": (value) => value === limit,
        ">": (value) => value > limit, ">=": (value) => value >= limit,
      }[compared[1]];
      return (row) => column.cells[row] !== null && holds(column.cells[row]);
    }
    const wanted = typed.toLowerCase();
    if (column.kind !== "text") return (row) => this.text(row, column).toLowerCase().includes(wanted);
    const exact = typed.startsWith("=") ? typed.slice(1) : null;
    const hits = column.words.map((word) => (exact === null ? word.toLowerCase().includes(wanted) : word === exact));
    return (row) => hits[column.cells[row]];
  }

  // Whether any text of a row has every word that is searched for.
  searches() {
    const texts = this.data.columns.filter((column) => column.kind === "text");
    return this.state.q.split(/\s+/).filter(Boolean).map((word) => {
      const tests = texts.map((column) => this.test(column, word.replace(/^=/, "")));
      return (row) => tests.some((test) => test(row));
    });
  }

  rows() {
    const filters = Object.entries(this.state.filters).filter(([name]) => this.columns.has(name));
    const tests = [...filters.map(([name, typed]) => this.test(this.columns.get(name), typed)), ...this.searches()];
    const rows = [];
    for (let row = 0; row < this.data.count; row += 1) if (tests.every((test) => test(row))) rows.push(row);
    const column = this.columns.get(this.state.sort.replace(/^-/, ""));
    return column ? this.sorted(rows, column) : rows;
  }

  // What is unknown comes last, either way.
  sorted(rows, column) {
    const sign = this.state.sort.startsWith("-") ? -1 : 1;
    let values = column.cells;
    if (column.kind === "text") {
      const order = column.words.map((word, place) => [word, place]);
      order.sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }));
      const rank = new Map(order.map(([word, place], nth) => [place, word === "" ? null : nth]));
      values = column.cells.map((place) => rank.get(place));
    }
    return rows.sort((one, other) => {
      const [a, b] = [values[one], values[other]];
      if (a === null || b === null) return (a === null) - (b === null) || one - other;
      return sign * (a - b) || one - other;
    });
  }

  // -- what is seen

  build() {
    this.body = element("tbody");
    this.status = element("p", { class: "status", role: "status" });
    this.pages = element("div", { class: "pages" });
    this.heads = new Map();
    const head = element("tr", {}, ...this.data.columns.map((column) => this.head(column)));
    const filters = element("tr", { class: "filters" }, ...this.data.columns.map((column) => this.filter(column)));
    this.table = element("table", {}, element("caption", {}, this.label),
      element("thead", {}, head, ...(this.filtered ? [filters] : [])), this.body);
    this.scroll = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": this.label }, this.table);
    this.place.replaceChildren(this.status, element("div", { class: "cut" }, this.scroll), this.pages);
  }

  head(column) {
    const sort = button(column.label, () => this.sortBy(column));
    const cell = element("th", { scope: "col", class: column.kind === "text" ? null : "amount" }, sort);
    this.heads.set(column.name, cell);
    return cell;
  }

  filter(column) {
    const label = `${column.label}: filter`;
    const onchange = ({ target }) => this.filterBy(column.name, target.value);
    let made = element("input", { type: "text", "aria-label": label, oninput: onchange, spellcheck: "false",
      placeholder: HINTS[column.kind], "data-column": column.name });
    if (column.kind === "text" && column.words.length <= MOST_CHOICES) {
      const words = [...column.words].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
      const choices = words.map((word) => element("option", { value: `=${word}` }, word.slice(0, 60) || "(none)"));
      made = element("select", { "aria-label": label, onchange, "data-column": column.name },
        element("option", { value: "" }, "all"), ...choices);
    }
    return element("td", { class: column.kind === "text" ? null : "amount" }, made);
  }

  sortBy(column) {
    const first = column.kind === "text" ? "" : "-"; // of amounts the largest first
    const orders = [`${first}${column.name}`, `${first ? "" : "-"}${column.name}`, ""];
    this.show({ sort: orders[(orders.indexOf(this.state.sort) + 1) % 3], page: 1 });
  }

  filterBy(name, typed) {
    const filters = { ...this.state.filters, [name]: typed };
    if (!typed) delete filters[name];
    this.show({ filters, page: 1 });
  }

  show(changes = {}) {
    Object.assign(this.state, changes);
    const rows = this.shown = this.rows();
    const last = Math.max(1, Math.ceil(rows.length / ROWS_AT_A_TIME));
    const page = this.state.page = Math.min(Math.max(1, this.state.page), last);
    const first = (page - 1) * ROWS_AT_A_TIME;
    this.body.replaceChildren(...rows.slice(first, first + ROWS_AT_A_TIME).map((row) => this.row(row)));
    for (const [name, cell] of this.heads) {
      const order = { [name]: "ascending", [`-${name}`]: "descending" }[this.state.sort];
      if (order) cell.setAttribute("aria-sort", order);
      else cell.removeAttribute("aria-sort");
    }
    for (const field of this.table.querySelectorAll("[data-column]")) {
      const value = this.state.filters[field.dataset.column] || "";
      if (field.value !== value) field.value = value;
    }
    this.status.textContent = `${grouped(rows.length)} of ${grouped(this.data.count)} ${this.name}`
      + (last > 1 ? `; rows ${grouped(first + 1)} to ${grouped(Math.min(first + ROWS_AT_A_TIME, rows.length))}` : "");
    this.turn(page, last);
    this.told(this);
  }

  row(row) {
    const made = this.data.columns.map((column, nth) => {
      const own = this.cell(row, column);
      const text = this.text(row, column);
      const unread = text === "" && column.kind === "bytes" ? "unavailable" : text;
      const tag = nth ? "td" : "th";
      const long = text.length > LONGER ? "long longer" : text.length > LONG[tag] ? "long" : null;
      const kind = column.kind === "text" ? long : "amount";
      return element(tag, { scope: nth ? null : "row", class: kind }, own || unread);
    });
    return element("tr", { "data-row": row }, ...made);
  }

  turn(page, last) {
    this.pages.hidden = last === 1;
    const to = (label, number, off) => button(label, () => {
      this.show({ page: number });
      this.scroll.focus({ preventScroll: true });
    }, { disabled: off });
    this.pages.replaceChildren(to("First", 1, page === 1), to("Previous", page - 1, page === 1),
      element("span", {}, `page ${page} of ${last}`), to("Next", page + 1, page === last), to("Last", last, page === last));
  }

  // All rows that pass, not the page alone; amounts in bytes, unknown ones empty.
  csv() {
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const plain = (row, column) => (column.kind === "text" ? this.text(row, column) : String(column.cells[row] ?? ""));
    const lines = [this.data.columns.map((column) => column.name)];
    for (const row of this.shown) lines.push(this.data.columns.map((column) => plain(row, column)));
    return lines.map((cells) => `${cells.map(quoted).join(",")}\n`).join("");
  }
}
