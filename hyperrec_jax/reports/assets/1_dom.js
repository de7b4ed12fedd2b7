"use strict";
// Elements, numbers as people read them, colours of the theme. Text of the data goes through
// textContent alone, so that nothing in it is ever read as HTML.

const $ = selector => document.querySelector(selector);

function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined)
      made.setAttribute(key, value);
  }
  made.append(...children.map(child => (child instanceof Node ? child : String(child))));
  return made;
}

function draw(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

const table = (head, rows, attributes = {}) =>
  make(
    "div",
    {class: "wide"},
    make(
      "table",
      attributes,
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          ...head.map(cell => (cell instanceof Node ? cell : make("th", {scope: "col"}, cell))),
        ),
      ),
      make("tbody", {}, ...rows),
    ),
  );

const tableRow = (cells, attributes = {}) =>
  make(
    "tr",
    attributes,
    ...cells.map(cell =>
      cell instanceof Node && cell.tagName === "TD" ? cell : make("td", {}, cell),
    ),
  );

function select(options, chosen, change, label) {
  const made = make("select", {"aria-label": label});
  options.forEach(([value, text]) => made.append(make("option", {value}, text)));
  made.value = chosen;
  made.addEventListener("change", () => change(made.value));
  return made;
}

// A number as it is, at four digits behind the point; differences with their sign.
const missing = value => value === null || value === undefined || Number.isNaN(value);
const shown = value => (missing(value) ? "–" : value.toFixed(4));
const signed = value =>
  missing(value)
    ? "–"
    : Math.abs(value) < 5e-5
      ? "±0"
      : (value > 0 ? "+" : "−") + Math.abs(value).toFixed(4);
const percent = value =>
  missing(value) ? "–" : (value < 0 ? "−" : "+") + Math.abs(100 * value).toFixed(2) + " %";
const written = weights => weights.map(weight => Number(weight.toFixed(4))).join(",");
const inWords = weights => weights.map(weight => weight.toFixed(2)).join(" / ");
const sum = values => values.reduce((total, value) => total + value, 0);

// What var(--name) comes to in the present theme.
const probe = make("span", {hidden: true});
function colour(name) {
  if (!probe.isConnected) document.body.append(probe);
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

// A colour for a part in [0, 1]: low, middle, high; distinct to colour-blind eyes.
function ramp(part) {
  const channels = name =>
    colour(name)
      .match(/[\d.]+/g)
      .slice(0, 3)
      .map(Number);
  const [from, to] = part < 0.5 ? ["low", "mid"] : ["mid", "high"];
  const [first, last] = [channels(from), channels(to)],
    share = part < 0.5 ? 2 * part : 2 * part - 1;
  return `rgb(${first.map((value, i) => Math.round(value + share * (last[i] - value))).join(" ")})`;
}

function tell(message) {
  $("#status").textContent = message;
}

function command(text) {
  const copy = make("button", {type: "button", class: "quiet no-print"}, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Select it by hand";
    }
  });
  return make("div", {class: "command"}, make("code", {}, text), copy);
}
