// One list under the chosen preference, and what moved against a baseline.

const RANKS = 10,
  COLUMNS = window.innerWidth < 600 ? 1 : 3;

function examples(host) {
  if (!facts.examples || !(facts.live || state.point.place !== null)) return;
  host.hidden = false;
  const {fields, lists} = facts.examples;
  let shownFields = fields.map((_, i) => i).slice(0, COLUMNS);
  const picks = make("div", {class: "row"}),
    list = make("div", {id: "list"});
  const against = make("span");
  const more = make("details", {class: "no-print"}, make("summary", {}, "Columns"));
  host.append(
    make("h2", {}, facts.grouped ? "One list" : "Some rows as one list"),
    picks,
    ...(fields.length > 1 ? [more] : []),
    list,
  );

  const name = fields.length
    ? [
        make(
          "label",
          {},
          "Items are called by",
          select(
            fields.map((field, i) => [i, field]),
            shownFields[0],
            value => {
              const chosen = Number(value);
              shownFields = [chosen, ...shownFields.filter(each => each !== chosen)].slice(
                0,
                COLUMNS,
              );
              marks();
              show();
            },
            "field that names items",
          ),
        ),
      ]
    : [];
  picks.append(
    make(
      "label",
      {},
      "List",
      select(
        lists.map((one, i) => [i, `${one.list} (${one.rows} rows)`]),
        state.list,
        value => {
          state.list = Number(value);
          if (facts.live) request();
          else show();
        },
        "list",
      ),
    ),
    ...name,
    make("label", {}, "moved against", against),
  );

  const boxes = fields.map((field, i) =>
    make("input", {
      type: "checkbox",
      onchange: event => {
        shownFields = event.target.checked
          ? [...shownFields, i]
          : shownFields.filter(each => each !== i);
        show();
      },
    }),
  );
  const marks = () =>
    boxes.forEach((box, i) => {
      box.checked = shownFields.includes(i);
    });
  more.append(
    make("div", {class: "row"}, ...boxes.map((box, i) => make("label", {}, box, fields[i]))),
  );
  marks();

  const show = () => {
    const items = itemsOf();
    if (!items) return;
    const head = [
      "rank",
      "moved",
      ...shownFields.map(i => make("th", {class: "text", scope: "col"}, fields[i])),
      ...goals.map((goal, i) => (facts.binary[i] ? `P(${goal})` : goal)),
      make("th", {class: "text", scope: "col"}, "in the log"),
    ];
    const rows = items
      .filter(item => item.rank <= RANKS)
      .map(item =>
        tableRow([
          item.rank,
          movedCell(item),
          ...shownFields.map(i => make("td", {class: "text"}, item.values[i])),
          ...item.predictions.map((value, i) => (facts.binary[i] ? chance(value) : shown(value))),
          make("td", {class: "text up"}, happened(item.labels)),
        ]),
      );
    const gone = items.filter(item => item.before <= RANKS && item.rank > RANKS);
    const names = gone.map(
      item => `${item.values[shownFields[0]] ?? "row"} (was ${item.before}, now ${item.rank})`,
    );
    list.replaceChildren(
      table(head, rows),
      make(
        "p",
        {class: "note"},
        gone.length ? `Left the first ${RANKS}: ${names.join(", ")}. ` : "",
        facts.expectedGain
          ? "Ordered by the expected gain of the preference."
          : "Ordered by the weighted sum of the outputs.",
      ),
    );
  };
  whenChanged(["pins", "against"], () => against.replaceChildren(baselineSelect()));
  whenChanged(["point", "pins", "against"], show);
  against.replaceChildren(baselineSelect());
}

function movedCell(item) {
  const moved = item.before - item.rank;
  const [sign, word, kind] =
    moved > 0 ? ["↑", "up", "up"] : moved < 0 ? ["↓", "down", "down"] : ["", "", "even"];
  return make(
    "td",
    {class: kind, "aria-label": moved ? `${word} ${Math.abs(moved)}` : "same place"},
    moved ? `${sign}${Math.abs(moved)}` : "·",
  );
}

const chance = value =>
  missing(value)
    ? "–"
    : value < 1e-4
      ? "<0.01 %"
      : `${(100 * value).toFixed(value < 0.1 ? 2 : 1)} %`;

// The goals that a row had, and what it had of those that are amounts.
const happened = labels =>
  labels
    .flatMap((label, i) =>
      missing(label) || (facts.binary[i] && !label)
        ? []
        : [facts.binary[i] ? goals[i] : `${goals[i]} ${Number(label.toPrecision(4))}`],
    )
    .join(", ");
