// What all parts share: packed data, elements, amounts in words, and the address.

const byId = (id) => document.getElementById(id);

// The content of a script element of data: base64 of gzip of JSON.
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(JSON.parse(byId(id).textContent)), (one) => one.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// An element with attributes and children; texts become text nodes, so nothing in them is markup.
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const sums = (steps) => {
  let sum = 0;
  return steps.map((step) => (sum += step));
};

const grouped = (number, digits = 0) =>
  number.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const UNITS = [["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];

// As harness.words.format_bytes.
function bytesInWords(amount) {
  const size = Math.abs(amount), sign = amount < 0 ? "-" : "";
  const unit = UNITS.find(([, factor]) => size >= 0.9995 * factor);
  return unit ? `${sign}${grouped(size / unit[1], 1)} ${unit[0]}` : `${sign}${grouped(Math.round(size))} B`;
}

// "4 MiB", "512 B" or "1,000" as a number; NaN for anything else.
function numberOf(text) {
  const found = /^(-?[\d.,]+)\s*(|B|s|KiB|MiB|GiB|TiB)$/i.exec(text.trim());
  const factor = found && UNITS.find(([name]) => name.toLowerCase() === found[2].toLowerCase());
  return found ? Number(found[1].replaceAll(",", "")) * (factor ? factor[1] : 1) : NaN;
}

// A number in words, by the kind of its column; `unit` is that of its row.
function inWords(number, kind, unit) {
  if (number === null) return "";
  if (kind === "bytes" || (kind === "amount" && unit === "B")) return bytesInWords(number);
  if (kind === "seconds") return `${grouped(number, 2)} s`;
  if (kind === "amount" && unit.startsWith("B/")) return `${grouped(Math.round(number))} B/${unit.slice(2)}`;
  return `${Number.isInteger(number) ? grouped(number) : String(number)} ${kind === "amount" ? unit : ""}`.trim();
}

// The address: #PLACE?name=value&...
function address() {
  const [place, rest = ""] = location.hash.slice(1).split("?");
  return { place, values: new URLSearchParams(rest) };
}

function setAddress(place, values) {
  const text = new URLSearchParams(values).toString();
  history.replaceState(null, "", `#${place}${text ? `?${text}` : ""}`);
}

function button(label, onclick, attributes = {}) {
  return element("button", { type: "button", onclick, ...attributes }, label);
}
