"""The page of `hyperrec explore`, and the three requests that it makes."""

import json

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hyperrec_jax.errors import UserError
from hyperrec_jax.evaluation.choice import suggest_preference
from hyperrec_jax.preference.grid import normalise
from hyperrec_jax.serving.explorer.answers import Explorer

MESSAGE = 300
"""Characters of a message: what a user typed is not repeated without an end."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'"
}


def create_app(explorer: Explorer) -> Starlette:
    """The application: `/`, `/at?preference=0.3,0.7&search=0` and `/suggest?goal=knee`."""
    front = explorer.front.to_dict()
    facts = {
        "tasks": explorer.tasks,
        "rows": explorer.front.rows,
        "split": explorer.front.split,
        "searches": len(explorer.searches),
        "metrics": ["AUC" if name == "auc" else name for name in explorer.front.primary],
        "binary": [kind == "binary" for kind in explorer.front.kinds],
        "value": explorer.front.value.tolist(),
    }
    # A goal may be called </script>.
    text = json.dumps(facts).replace("<", "\\u003c").replace("NaN", "null")
    page = _PAGE.replace("FACTS", text)

    async def index(request: Request) -> Response:
        return HTMLResponse(page, headers=_HEADERS)

    # Not async: these run in threads, so that the page stays reachable meanwhile.
    def at(request: Request) -> Response:
        try:
            weights = request.query_params.get("preference", "").split(",")
            preference = normalise(np.array(weights, np.float64), len(explorer.tasks), "preference")
            search = int(request.query_params.get("search", "0"))
            return JSONResponse(explorer.at(preference, search))
        except (UserError, ValueError) as error:
            return JSONResponse({"error": str(error)[:MESSAGE]}, 422)

    def suggest(request: Request) -> Response:
        try:
            goal = request.query_params.get("goal", "")
            return JSONResponse({"preference": suggest_preference(front, goal).preference.tolist()})
        except UserError as error:
            return JSONResponse({"error": str(error)[:MESSAGE]}, 422)

    return Starlette(
        routes=[Route("/", index), Route("/at", at), Route("/suggest", suggest)],
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preferences</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; margin: 0 auto; max-width: 72rem;
  padding: 1rem; }
main { display: grid; gap: 1rem 2rem; grid-template-columns:
  repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: .5rem 0; }
label { display: grid; grid-template-columns: 8rem 1fr 4rem; gap: .5rem; align-items: center; }
label span { overflow: hidden; text-overflow: ellipsis; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
td.up { color: #00664a; } td.down { color: #a44100; } #error { color: #a00; min-height: 1.5em; }
#list { overflow-x: auto; grid-column: 1 / -1; } svg { max-width: 100%; }
output { text-align: right; } input, select, button { font: inherit; }
form { margin-top: .75rem; } small { color: #444; overflow-wrap: anywhere; }
</style>
</head>
<body>
<h1>One model, every trade-off</h1>
<main>
<section><h2>Weights</h2><div id="sliders"></div>
<form id="goal"><input aria-label="goal" size="24" value="knee">
<button>Suggest</button></form><small>goals: <span id="goals"></span></small>
<p id="error" role="status"></p>
<h2>Metrics <small id="where"></small></h2><table id="metrics"></table></section>
<section><h2>Front</h2><svg id="front" viewBox="0 0 420 320" role="img"
aria-label="AUC of the first two goals"></svg></section>
<section id="list"><h2>Search <select id="search" aria-label="search"></select></h2>
<p>By the expected gain, of which 1 is an average row; arrows: against equal weights.</p>
<table></table></section>
</main>
<script>
const facts = FACTS, $ = selector => document.querySelector(selector);
const element = (name, text, attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const key in attributes) made.setAttribute(key, attributes[key]);
  return made;
};
const row = (tag, cells) => {
  const made = document.createElement("tr");
  made.append(...cells.map(cell => cell instanceof Node ? cell : element(tag, cell)));
  return made;
};
const shown = value => value === null ? "undefined" : value.toFixed(4);
const sliders = facts.tasks.map(task => {
  const label = document.createElement("label");
  const slider = element("input", "", {type: "range", min: 0, max: 1000, value: 500});
  label.append(element("span", task, {title: task}), slider, element("output", ""));
  slider.addEventListener("input", update);
  $("#sliders").append(label);
  return slider;
});
const [first, last] = [facts.tasks[0], facts.tasks.at(-1)];
const limit = facts.tasks.length > 1 ? `,${first}=1%` : "";
$("#goals").textContent =
  `knee; best:${last}${limit}; ratio:${facts.tasks.map(task => `${task}=1`).join(",")}`;
$("#where").textContent = `${facts.split}, ${facts.rows.toLocaleString()} rows`;
for (let i = 0; i < facts.searches; i++) $("#search").append(element("option", i + 1, {value: i}));
$("#search").addEventListener("change", update);

const label = i => `${facts.metrics[i]} ${facts.tasks[i]}`;

function draw(value) {
  const svg = $("#front"), second = facts.tasks.length > 1 ? 1 : 0, ns = svg.namespaceURI;
  const points = facts.value.concat([value]).map(p => [p[0], p[second]]);
  if (points.some(p => p.includes(null))) return;
  const [x, y] = [0, 1].map(k => {
    const all = points.map(p => p[k]), low = Math.min(...all), high = Math.max(...all);
    const size = k ? 250 : 330, start = k ? 20 : 70;
    const at = v => high > low ? (v - low) / (high - low) : .5;
    return Object.assign(v => start + size * (k ? 1 - at(v) : at(v)), {low, high});
  });
  const add = (name, attributes, text = "") => {
    const made = document.createElementNS(ns, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    made.textContent = text;
    svg.append(made);
  };
  svg.replaceChildren();
  add("path", {d: "M60 10V280H410", fill: "none", stroke: "#888"});
  for (const p of points.slice(0, -1))
    add("circle", {cx: x(p[0]), cy: y(p[1]), r: 4, fill: "#0072B2"});
  const now = points.at(-1);
  const ring = {fill: "none", stroke: "#D55E00", "stroke-width": 3};
  add("circle", {cx: x(now[0]), cy: y(now[1]), r: 8, ...ring});
  add("text", {x: 70, y: 296, "font-size": 11}, shown(x.low));
  add("text", {x: 400, y: 296, "font-size": 11, "text-anchor": "end"}, shown(x.high));
  add("text", {x: 235, y: 312, "font-size": 12, "text-anchor": "middle"}, label(0));
  add("text", {x: 56, y: 274, "font-size": 11, "text-anchor": "end"}, shown(y.low));
  add("text", {x: 56, y: 26, "font-size": 11, "text-anchor": "end"}, shown(y.high));
  const upright = {transform: "rotate(-90 14 150)", "text-anchor": "middle"};
  add("text", {x: 14, y: 150, "font-size": 12, ...upright}, label(second));
}

function show(answer) {
  $("#error").textContent = answer.error ?? "";
  if (answer.error) return;
  document.querySelectorAll("#sliders output").forEach((output, i) =>
    output.textContent = answer.preference[i].toFixed(3));
  $("#metrics").replaceChildren(
    row("th", ["goal", "", "loss"]),
    ...facts.tasks.map((task, i) =>
      row("td", [task, `${facts.metrics[i]} ${shown(answer.value[i])}`, shown(answer.loss[i])])));
  draw(answer.value);
  const names = Object.keys(answer.list[0].values);
  $("#list table").replaceChildren(
    row("th", ["rank", "", "score", ...names,
      ...facts.tasks.map((task, i) => facts.binary[i] ? `p(${task})` : task),
      ...facts.tasks.map(task => `label ${task}`)]),
    ...answer.list.map(item => {
      const moved = item.equal - item.rank;
      const arrow = moved ? `${moved > 0 ? "\\u2191" : "\\u2193"}${Math.abs(moved)}` : "";
      return row("td", [item.rank, element("td", arrow, {class: moved > 0 ? "up" : "down"}),
        item.score.toPrecision(4), ...names.map(name => item.values[name]),
        ...item.predictions.map(shown), ...item.labels.map(value => value ?? "")]);
    }));
}

async function ask(path) {  // what fails is told, and the page goes on with the next request
  try {
    const response = await fetch(path);
    const answer = await response.json().catch(() => ({error: `status ${response.status}`}));
    if (!response.ok && !answer.error) answer.error = `status ${response.status}`;
    return answer.error ? {error: answer.error} : answer;
  } catch (error) {
    return {error: `No answer (${error.message}): is the server still running?`};
  }
}

let busy = false, again = false;
async function update() {  // one request at a time; the last position of the sliders wins
  if (busy) { again = true; return; }
  busy = true;
  try {
    do {
      again = false;
      const preference = sliders.map(slider => slider.value);
      const query = new URLSearchParams({preference, search: $("#search").value});
      show(await ask(`at?${query}`));
    } while (again);
  } finally {
    busy = false;
  }
}
$("#goal").addEventListener("submit", async event => {
  event.preventDefault();
  const query = new URLSearchParams({goal: $("#goal input").value});
  const answer = await ask(`suggest?${query}`);
  if (answer.error) { show(answer); return; }
  answer.preference.forEach((weight, i) => sliders[i].value = 1000 * weight);
  update();
});
update();
</script>
</body>
</html>
"""
