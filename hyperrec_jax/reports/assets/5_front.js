// The front: what every preference gives two of the goals; the chosen point, and two pinned ones.

function workspace(host) {
  const tabs = make("div", {
    class: "tabs no-print",
    role: "group",
    "aria-label": "what the front is of",
  });
  views.forEach((one, i) =>
    tabs.append(
      make(
        "button",
        {
          type: "button",
          "aria-pressed": i === state.view,
          onclick: () => {
            state.view = i;
            changed("view");
          },
        },
        one.title,
      ),
    ),
  );
  const note = make("p", {class: "note"});
  whenChanged(["view"], () => {
    [...tabs.children].forEach((tab, i) => tab.setAttribute("aria-pressed", i === state.view));
    note.textContent = view().note;
  });
  const left = make("figure", {class: "panel stays"}),
    right = make("div", {class: "panel"});
  // One point alone makes no picture.
  const pictured = goals.length > 1 && (hasChoice || facts.others.length);
  host.append(
    make("h2", {}, "The front"),
    tabs,
    note,
    make("div", {class: pictured ? "two" : ""}, ...(pictured ? [left] : []), right),
    comparison(),
  );
  if (pictured) frontChart(left);
  if (hasChoice) {
    right.append(make("h3", {}, "Preference"));
    const controls = make("div");
    right.append(controls);
    weightControls(controls);
    right.append(preferenceButtons());
  }
  right.append(measures());
}

function frontChart(host) {
  if (goals.length > 2) {
    const options = goals.map((goal, i) => [i, goal]);
    const pick = k =>
      select(
        options,
        state.axes[k],
        value => {
          state.axes[k] = Number(value);
          changed("view");
        },
        k ? "goal upwards" : "goal to the right",
      );
    host.append(
      make(
        "div",
        {class: "row no-print"},
        make("label", {}, "Right: ", pick(0)),
        make("label", {}, "Up: ", pick(1)),
      ),
    );
  }
  const box = make("div", {
    class: hasChoice ? "chart" : "chart still",
    style: "--height: 23rem",
    tabindex: hasChoice ? 0 : false,
    role: hasChoice ? "application" : "img",
  });
  host.append(box, key());
  const pair = values => [values[state.axes[0]], values[state.axes[1]]];
  const others = () => facts.others.flatMap(other => (other[view().name] ?? []).map(pair));
  const points = () => view().values.map(pair);
  const ends = k =>
    around(
      [...points(), ...others()].map(point => point[k]),
      0.08,
    ) ?? [0, 1];
  const drawn = chart(box, () => ({
    x: measure(view(), state.axes[0]),
    y: measure(view(), state.axes[1]),
    xRange: ends(0),
    yRange: ends(1),
    paint: plot => paintFront(plot, points(), others(), pair),
  }));
  whenChanged(["view"], () => {
    box.setAttribute(
      "aria-label",
      `${measure(view(), state.axes[1])} against ` +
        `${measure(view(), state.axes[0])}, one point for each preference; arrows choose, A and B pin`,
    );
    drawn.again();
  });
  whenChanged(["point", "pins"], drawn.redraw);
  if (!hasChoice) return;
  pointing(box, drawn, points, place => pointLines(pointAt(place)), choosePlace);
  box.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key],
      up = {ArrowUp: 1, ArrowDown: -1}[event.key];
    if (step) stepAlong(state.axes[0], step);
    else if (up) stepAlong(state.axes[1], up);
    else if (event.key === "Home" || event.key === "End")
      stepAlong(state.axes[0], event.key === "End" ? Infinity : -Infinity);
    else if ("ab".includes(event.key.toLowerCase())) pin(event.key.toUpperCase());
    else return;
    event.preventDefault();
  });
}

function paintFront(plot, points, others, pair) {
  const one = view(),
    place = state.point.place;
  const ink = colour("ink"),
    warm = colour("warm"),
    pale = colour("muted");
  others.forEach(([x, y]) => {
    const [left, top] = placed(plot, x, y),
      size = 9 * uPlot.pxRatio;
    plot.ctx.fillStyle = pale;
    plot.ctx.fillRect(left - size / 2, top - size / 2, size, size);
  });
  if (goals.length === 2 && hasChoice) {
    const order = points
      .map((_, i) => i)
      .sort((a, b) => facts.preferences[a][0] - facts.preferences[b][0]);
    order.slice(1).forEach((to, i) => segment(plot, points[order[i]], points[to], pale, 1));
  }
  const name = state.axes[0];
  points.forEach(([x, y], i) => {
    const part = facts.preferences && points.length > 1 ? facts.preferences[i][name] : 1;
    disc(plot, x, y, 5, {fill: ramp(part), stroke: one.notDominated[i] ? ink : null, width: 1.5});
  });
  const now = pair(state.point.values[one.name]);
  const low = one.low && place !== null ? pair(rowOf(one.low, place)) : null;
  if (low) {
    const high = pair(rowOf(one.high, place));
    segment(plot, [low[0], now[1]], [high[0], now[1]], warm, 1.5);
    segment(plot, [now[0], low[1]], [now[0], high[1]], warm, 1.5);
  }
  if (hasChoice) disc(plot, now[0], now[1], 10, {stroke: warm, width: 3});
  if (place === null) disc(plot, now[0], now[1], 4, {fill: warm});
  for (const [label, point] of Object.entries(state.pins))
    if (point) letter(plot, ...pair(point.values[one.name]), label);
}

function pointLines(point) {
  const one = view();
  return [
    `weights ${inWords(point.weights)}`,
    ...goals.map((_, i) => {
      const interval = ends(one, point, i);
      return `${measure(one, i)} ${shown(point.values[one.name][i])}${interval ? ` (${interval})` : ""}`;
    }),
  ];
}

function key() {
  const parts = [];
  if (hasChoice) {
    const label = make("span");
    whenChanged(["view"], () =>
      label.replaceChildren(
        `weight of ${goals[state.axes[0]]}: 0`,
        make("i", {class: "ramp"}),
        "1",
      ),
    );
    parts.push(
      label,
      make("span", {}, make("i", {class: "dot now"}), "chosen, with its interval"),
      make(
        "span",
        {},
        make("i", {class: "dot ring"}),
        "no other preference is better in all goals",
      ),
    );
  }
  const others = make(
    "span",
    {},
    make("i", {class: "dot other"}),
    `other models: ${facts.others.map(other => other.name).join(", ")}`,
  );
  if (facts.others.length) {
    whenChanged(["view"], () => {
      others.hidden = view().name === "lists";
    });
    parts.push(others);
  }
  return make("figcaption", {class: "key"}, ...parts);
}

function preferenceButtons() {
  const clear = make("button", {type: "button", class: "quiet", onclick: unpin}, "Unpin");
  whenChanged(["pins"], () => {
    clear.disabled = !state.pins.A && !state.pins.B;
  });
  return make(
    "div",
    {class: "row no-print", style: "margin: .75rem 0"},
    make("button", {type: "button", onclick: () => choose(equalWeights())}, "Equal weights"),
    ...["A", "B"].map(name =>
      make(
        "button",
        {type: "button", id: `pin-${name}`, onclick: () => pin(name)},
        `Pin as ${name}`,
      ),
    ),
    clear,
  );
}

// The measures of the chosen preference.
function measures() {
  const host = make("div", {id: "measures"});
  whenChanged(["point"], () => {
    const rows = views.flatMap(one =>
      goals.map((_, i) =>
        tableRow([
          make("td", {class: "text"}, measure(one, i)),
          shown(state.point.values[one.name][i]),
          make("td", {class: "even"}, ends(one, state.point, i)),
        ]),
      ),
    );
    const known = state.point.place !== null && views.some(one => one.low);
    host.replaceChildren(
      table(["", "chosen", known ? "95 % interval" : ""], rows),
      ...(hasChoice ? [command(`--preference ${written(state.point.weights)}`)] : []),
    );
  });
  return host;
}

// The pinned points beside each other.
function comparison() {
  const host = make("div", {
    id: "compared",
    class: "panel",
    hidden: true,
    style: "margin-top: 1rem",
  });
  whenChanged(["pins"], () => {
    const {A, B} = state.pins;
    host.hidden = !A && !B;
    if (host.hidden) return;
    if (!A || !B) {
      host.replaceChildren(
        make(
          "p",
          {style: "margin: 0"},
          `${A ? "A" : "B"} is pinned. Choose another point and pin it as ${A ? "B" : "A"} to compare the two.`,
        ),
      );
      return;
    }
    const rows = goals.map((goal, i) =>
      tableRow([
        make("td", {class: "text"}, `weight ${goal}`),
        A.weights[i].toFixed(3),
        "",
        B.weights[i].toFixed(3),
        "",
        signed(B.weights[i] - A.weights[i]),
      ]),
    );
    views.forEach(one =>
      goals.forEach((_, i) =>
        rows.push(
          tableRow([
            make("td", {class: "text"}, measure(one, i)),
            ...[A, B].flatMap(point => [
              shown(point.values[one.name][i]),
              make("td", {class: "even"}, ends(one, point, i)),
            ]),
            differenceCell(one, A, B, i),
          ]),
        ),
      ),
    );
    host.replaceChildren(
      make("h3", {}, "A and B"),
      table(["", "A", "", "B", "", "B − A"], rows),
      make(
        "p",
        {class: "note", style: "margin-bottom: 0"},
        "Bold: surely different, with 95 % confidence for all preferences at once.",
      ),
    );
  });
  return host;
}

function ends(one, point, goal) {
  if (!one.low || point.place === null) return "";
  return `${shown(rowOf(one.low, point.place)[goal])} to ${shown(rowOf(one.high, point.place)[goal])}`;
}

// What must be taken off a gain over a baseline so that it is sure; null where it is not known.
const doubt = (one, baseline, place, goal) =>
  one.doubt && baseline !== null && place !== null
    ? (one.doubt[baseline]?.[place]?.[goal] ?? null)
    : null;

function differenceCell(one, from, to, goal) {
  const values = [from, to].map(point => point.values[one.name][goal]);
  if (values.some(missing)) return make("td", {}, "–");
  const change = values[1] - values[0],
    better = merit(one, goal, change);
  const noise = doubt(one, from.place, to.place, goal);
  const sure = noise !== null && Math.abs(change) > noise && change !== 0;
  const cell = make("td", {class: better > 0 ? "up" : better < 0 ? "down" : "even"});
  cell.append(sure ? make("b", {}, signed(change)) : signed(change));
  return cell;
}
