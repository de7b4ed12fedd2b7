// What follows the chosen preference beside the front: segments, curves by weight, calibration,
// use of the experts; and the training, which does not.

function segments(host) {
  if (!facts.segments.length) return;
  host.hidden = false;
  let field = 0;
  const body = make("div");
  const pick = select(
    facts.segments.map((one, i) => [i, one.field]),
    0,
    value => {
      field = Number(value);
      show();
    },
    "segments by",
  );
  const ofLists = facts.segments[0].of === "lists";
  const one = views.find(each => each.name === (ofLists ? "lists" : "predictions"));
  host.append(
    make("h2", {}, "Segments"),
    make("div", {class: "row"}, make("label", {}, "By", pick)),
    body,
  );
  const show = () => {
    const found = facts.segments[field],
      place = state.point.place ?? nearest(state.point.weights);
    const baseline = nearest(baselinePoint(state.against).weights);
    const head = [
      found.field,
      ofLists ? "lists" : "rows",
      ...goals.flatMap((_, i) => [measure(one, i), `against ${baselineName(state.against)}`]),
    ];
    const rows = found.names.map((name, i) =>
      tableRow([
        make("td", {class: "text"}, name),
        found.count[i].toLocaleString("en"),
        ...goals.flatMap((_, goal) => {
          const values = [baseline, place].map(at => rowOf(found.values[i], at)[goal]);
          if (values.some(missing)) return ["–", "–"];
          const better = merit(one, goal, values[1] - values[0]);
          return [
            shown(values[1]),
            make(
              "td",
              {class: better > 0 ? "up" : better < 0 ? "down" : "even"},
              signed(values[1] - values[0]),
            ),
          ];
        }),
      ]),
    );
    body.replaceChildren(
      table(head, rows),
      make(
        "p",
        {class: "note"},
        "The most frequent values; too few rows leave a dash. " +
          (state.point.place === null ? "Measured at the nearest preference of the grid." : ""),
      ),
    );
  };
  whenChanged(["point", "pins", "against"], show);
}

function byWeight(host) {
  if (!hasChoice) return;
  host.hidden = false;
  const boxes = make("div", {class: "many"});
  host.append(
    make("h2", {}, "Against the weight"),
    make(
      "p",
      {class: "note"},
      "A model that obeys: the more weight a goal has, the better its measure. The upright line is the chosen preference.",
    ),
    boxes,
  );
  const ordered = goals.length === 2;
  const made = goals.map((goal, i) => {
    const box = make("div", {class: "chart still", role: "img", style: "--height: 15rem"});
    boxes.append(make("figure", {class: "panel"}, make("h3", {}, goal), box));
    const order = facts.preferences
      .map((_, place) => place)
      .sort((a, b) => facts.preferences[a][i] - facts.preferences[b][i]);
    const column = values => order.map(place => rowOf(values, place)[i]);
    return chart(box, () => {
      const one = view(),
        xs = order.map(place => facts.preferences[place][i]),
        blue = colour("accent");
      const values = column(one.values),
        low = one.low ? column(one.low) : values,
        high = one.high ? column(one.high) : values;
      box.setAttribute("aria-label", `${measure(one, i)} by the weight of ${goal}`);
      const yRange = around([...values, ...low, ...high]) ?? [0, 1];
      return {
        x: `weight of ${goal}`,
        y: one.labels[i],
        xRange: [-0.02, 1.02],
        yRange,
        data: ordered ? [xs, values, low, high] : undefined,
        series: ordered
          ? [
              {stroke: blue, width: 2, points: {show: true, size: 5, fill: blue}},
              ...[0, 1].map(() => ({stroke: "transparent", points: {show: false}})),
            ]
          : [],
        bands: ordered
          ? [{series: [3, 2], fill: blue.replace("rgb(", "rgba(").replace(")", ", .18)")}]
          : [],
        paint: plot => {
          if (!ordered)
            xs.forEach((x, at) => {
              segment(plot, [x, low[at]], [x, high[at]], colour("grid"), 1);
              disc(plot, x, values[at], 3.5, {fill: blue});
            });
          const weight = state.point.weights[i];
          segment(plot, [weight, yRange[0]], [weight, yRange[1]], colour("warm"), 2);
        },
      };
    });
  });
  whenChanged(["view"], () => made.forEach(one => one.again()));
  whenChanged(["point"], () => made.forEach(one => one.redraw()));
}

function calibration(host) {
  if (!host) return;
  const boxes = make("div", {class: "many"});
  const places = Object.keys(facts.calibration).map(Number);
  const closest = () => {
    if (!facts.preferences || places.length < 2) return places[0];
    const far = places.map(place =>
      sum(facts.preferences[place].map((w, i) => Math.abs(w - state.point.weights[i]))),
    );
    return places[far.indexOf(Math.min(...far))];
  };
  const note = make("p", {class: "note"});
  host.append(note, boxes);
  const made = Object.keys(facts.calibration[places[0]]).map(goal => {
    const all = places.map(place => facts.calibration[place][goal]);
    const top = 1.05 * Math.max(...all.flatMap(curve => [...curve.predicted, ...curve.observed]));
    const box = make("div", {
      class: "chart still",
      role: "img",
      style: "--height: 15rem",
      "aria-label": `predicted against observed rate of ${goals[goal]}`,
    });
    boxes.append(make("figure", {class: "panel"}, make("h3", {}, goals[goal]), box));
    return chart(box, () => ({
      x: "predicted",
      y: "observed",
      xRange: [0, top],
      yRange: [0, top],
      paint: plot => {
        segment(plot, [0, 0], [top, top], colour("muted"), 1, [5, 5]);
        const {predicted, observed} = facts.calibration[closest()][goal];
        predicted
          .slice(1)
          .forEach((x, i) =>
            segment(plot, [predicted[i], observed[i]], [x, observed[i + 1]], colour("accent"), 1.5),
          );
        predicted.forEach((x, i) => disc(plot, x, observed[i], 3.5, {fill: colour("accent")}));
      },
    }));
  });
  whenChanged(["point"], () => {
    note.textContent =
      "Predicted against observed rate in bins of equally many rows; the diagonal is calibrated." +
      (places.length > 1 ? ` Shown at weights ${inWords(facts.preferences[closest()])}.` : "");
    made.forEach(one => one.redraw());
  });
}

function experts(host) {
  if (!host) return;
  const {use, order} = facts.experts,
    top = Math.max(...use.flat(2));
  const gates = use[0].map((_, gate) => {
    const cells = [];
    const grid = make("div", {
      class: "heat",
      role: "img",
      style: `--columns: ${use.length}`,
      "aria-label": "share of each expert by preference",
    });
    use[0][gate].forEach((_, expert) => {
      grid.append(make("span", {}, expert + 1));
      order.forEach(place => {
        const share = use[place][gate][expert];
        const at =
          facts.preferences && use.length > 1
            ? `weights ${inWords(facts.preferences[place])}: `
            : "";
        const cell = make("i", {
          style: `--share: ${(100 * share) / top}`,
          title: `expert ${expert + 1}, ${at}${(100 * share).toFixed(1)} %`,
        });
        cells.push([cell, place]);
        grid.append(cell);
      });
    });
    const told = make("p", {class: "note"});
    host.append(
      make(
        "figure",
        {class: "panel", style: "margin-bottom: 1rem"},
        ...(use[0].length > 1 ? [make("h3", {}, `gate of ${goals[gate]}`)] : []),
        grid,
        told,
      ),
    );
    return {gate, cells, told};
  });
  whenChanged(["point"], () =>
    gates.forEach(({gate, cells, told}) => {
      const now = use.length > 1 ? (state.point.place ?? nearest(state.point.weights)) : 0;
      cells.forEach(([cell, place]) =>
        cell.classList.toggle("now", use.length > 1 && place === now),
      );
      told.textContent =
        `${use.length > 1 ? "At the chosen preference: " : ""}` +
        use[now][gate]
          .map((share, i) => `expert ${i + 1} ${(100 * share).toFixed(0)} %`)
          .join(", ");
    }),
  );
}

function training(host) {
  if (!host) return;
  const colours = () => ["accent", "warm", "good", "muted", "bad", "high"].map(colour);
  const boxes = make("div", {class: "many"});
  host.append(boxes);
  facts.training.forEach(panel => {
    const box = make("div", {
      class: "chart still",
      role: "img",
      style: "--height: 15rem",
      "aria-label": panel.title,
    });
    const names = make("figcaption", {class: "key"});
    boxes.append(make("figure", {class: "panel"}, make("h3", {}, panel.title), box, names));
    chart(box, () => {
      const paint = colours(),
        data = uPlot.join(panel.lines.map(line => [line.steps, line.values]));
      names.replaceChildren(
        ...panel.lines.map((line, i) =>
          make(
            "span",
            {},
            make("i", {class: "dot", style: `background: ${paint[i % paint.length]}`}),
            line.name,
          ),
        ),
      );
      return {
        x: "step",
        y: "",
        xRange: around(data[0], 0.02) ?? [0, 1],
        yRange: around(data.slice(1).flat()) ?? [0, 1],
        data,
        series: panel.lines.map((line, i) => ({
          stroke: paint[i % paint.length],
          width: 2,
          spanGaps: true,
          dash: line.dashed ? [6, 4] : [],
          points: {show: line.steps.length < 30, size: 5, fill: paint[i % paint.length]},
        })),
      };
    });
  });
}

// The table of all preferences: sorted by its headings, chosen by its rows.
function frontTable() {
  const whole = $("#front");
  if (!whole) return;
  whole.tHead.querySelectorAll("th").forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      whole.tHead.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const value = row => Number(row.cells[column].dataset.value);
      [...whole.tBodies[0].rows]
        .sort((a, b) => sign * (value(a) - value(b)))
        .forEach(row => whole.tBodies[0].append(row));
    });
  });
  if (!hasChoice) return;
  [...whole.tBodies[0].rows].forEach((row, place) => {
    row.addEventListener("click", () => choosePlace(place));
    whenChanged(["point"], () => row.classList.toggle("now", state.point.place === place));
  });
}
