// The best choice under guards, picked from controls: one goal is improved, the others may lose
// only so much against a baseline, surely.

function choice(host) {
  if (!hasChoice || goals.length < 2 || !views.some(one => one.doubt)) return;
  host.hidden = false;
  let improved = goals.length - 1;
  const allowed = goals.map(() => 1);
  const guards = make("span", {class: "row"}),
    against = make("span");
  const found = make("output", {"aria-live": "polite", id: "found"});
  const note = make("div");
  let best = null;
  const go = make(
    "button",
    {
      type: "button",
      class: "main no-print",
      id: "go",
      onclick: () => best !== null && choosePlace(best),
    },
    "Show it",
  );
  host.append(
    make("h2", {}, "The best choice"),
    make(
      "div",
      {class: "row panel"},
      make(
        "label",
        {},
        "Improve",
        select(
          goals.map((goal, i) => [i, goal]),
          improved,
          value => {
            improved = Number(value);
            changed("choice");
          },
          "goal to improve",
        ),
      ),
      guards,
      make("label", {}, "against", against),
    ),
    make("p", {class: "row", style: "margin-top: .75rem"}, found, go),
    note,
  );

  const fill = () => {
    guards.replaceChildren(
      ...goals.flatMap((goal, i) =>
        i === improved
          ? []
          : [
              make(
                "label",
                {},
                `${goal} may lose`,
                make("input", {
                  type: "number",
                  min: 0,
                  step: 0.1,
                  value: allowed[i],
                  "aria-label": `per cent that ${goal} may lose`,
                  oninput: event => {
                    allowed[i] = Math.max(0, Number(event.target.value) || 0);
                    changed("limits");
                  },
                }),
                "%",
              ),
            ],
      ),
    );
    against.replaceChildren(baselineSelect());
  };
  const answer = () => {
    const one = view(),
      baseline = baselinePoint(state.against);
    best = one.doubt ? guarded(one, improved, allowed, baseline) : null;
    go.disabled = best === null;
    note.replaceChildren();
    if (!one.doubt) {
      found.textContent =
        "No resamples tell what is sure of these measures: choose another view above.";
      return;
    }
    found.textContent =
      best === null ? nothing(one, improved, baseline) : told(one, improved, best, baseline);
    note.append(
      make(
        "p",
        {class: "note"},
        `${facts.split} rows, ${one.title.toLowerCase()}; 95 % ` +
          "confidence, all preferences at once. The command looks between these preferences, too, " +
          "on the validation rows:",
      ),
      command(suggestion(one, improved, allowed, baseline)),
    );
  };
  whenChanged(["choice", "pins"], fill);
  whenChanged(["choice", "limits", "pins", "view", "against"], answer);
  fill();
}

const baselineSelect = () =>
  select(
    baselines(),
    state.pins[state.against] ? state.against : "equal",
    value => {
      state.against = value;
      changed("against", "point");
      if (facts.live) request();
    },
    "compared with",
  );

function guarded(one, improved, allowed, baseline) {
  const from = baseline.place ?? nearest(baseline.weights),
    start = rowOf(one.values, from);
  let best = null;
  one.values.forEach((values, place) => {
    const keeps = goals.every((_, i) => {
      const sure = merit(one, i, values[i] - start[i]) - (doubt(one, from, place, i) ?? Infinity);
      return i === improved ? sure > 0 : sure >= (-allowed[i] / 100) * Math.abs(start[i]) - 1e-12;
    });
    if (
      keeps &&
      (best === null || merit(one, improved, values[improved] - one.values[best][improved]) > 0)
    )
      best = place;
  });
  return best;
}

function told(one, improved, best, baseline) {
  const from = baseline.place ?? nearest(baseline.weights),
    start = rowOf(one.values, from);
  const changes = goals.map((goal, i) => {
    const change = one.values[best][i] - start[i],
      least = merit(one, i, change) - doubt(one, from, best, i);
    const sure = merit(one, i, least);
    return i === improved
      ? `${one.labels[i]} of ${goal} ${signed(change)} (surely better than ${signed(sure)})`
      : `${goal} ${percent(change / Math.abs(start[i]))} (at worst ${percent(sure / Math.abs(start[i]))})`;
  });
  return `Weights ${inWords(facts.preferences[best])}: ${changes.join(", ")}.`;
}

const nothing = (one, improved, baseline) =>
  `No preference surely improves ${goals[improved]} over ` +
  `${baselineName(state.against)} (${inWords(baseline.weights)}) within these limits.`;

const quoted = text =>
  /^[\w./@:=+,*-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

function suggestion(one, improved, allowed, baseline) {
  const kind = one.higher[improved] ? "max" : "min";
  const guards = goals.flatMap((_, i) =>
    i === improved
      ? []
      : [
          "--guard",
          quoted(one.measures[i] + (one.higher[i] ? `>=-${allowed[i]}%` : `<=+${allowed[i]}%`)),
        ],
  );
  const start = state.pins[state.against] ? ["--baseline", written(baseline.weights)] : [];
  return [
    "hyperrec suggest --workdir",
    quoted(facts.workdir),
    "--goal",
    quoted(`${kind}:${one.measures[improved]}`),
    ...guards,
    ...start,
  ].join(" ");
}
