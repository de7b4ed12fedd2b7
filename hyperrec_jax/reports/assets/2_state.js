// What is chosen, and where its numbers come from: the page's own facts, or a running explorer.

const facts = JSON.parse($("#facts").textContent);
const goals = facts.goals,
  views = facts.views;
const hasChoice = facts.preferences !== null && facts.preferences.length > 1;

const state = {
  view: 0, // position among the views
  axes: [0, Math.min(1, goals.length - 1)],
  point: null, // {weights, place, values}: place is null between the preferences of the grid
  pins: {A: null, B: null},
  list: 0,
  against: "equal", // what lists and choices are compared with: equal, A or B
  items: null, // the list of a running explorer under the chosen preference
};

const listeners = [];
const whenChanged = (what, listener) => listeners.push([what, listener]);
function changed(...what) {
  for (const [wanted, listener] of listeners)
    if (wanted.some(each => what.includes(each))) listener();
}

const view = () => views[state.view];
const measure = (one, goal) => `${one.labels[goal]} ${goals[goal]}`;
// A model that takes no preference has one row for all of them.
const rowOf = (table, place) => table[table.length === 1 ? 0 : place];
const merit = (one, goal, value) => (one.higher[goal] ? value : -value);

function pointAt(place) {
  const values = Object.fromEntries(views.map(one => [one.name, rowOf(one.values, place)]));
  return {weights: facts.preferences ? facts.preferences[place] : [], place, values};
}

function nearest(weights) {
  if (!facts.preferences) return 0;
  const far = facts.preferences.map(each => sum(each.map((w, i) => Math.abs(w - weights[i]))));
  return far.indexOf(Math.min(...far));
}

const equalWeights = () => goals.map(() => 1 / goals.length);
const baselinePoint = name => state.pins[name] ?? pointAt(nearest(equalWeights()));
const baselineName = name => (state.pins[name] ? name : "equal weights");
const baselines = () => [
  ["equal", "equal weights"],
  ...["A", "B"].filter(pin => state.pins[pin]).map(pin => [pin, `pin ${pin}`]),
];

// Weights of any positive sum; all at zero means equal weights, and is said.
function normalised(weights) {
  const total = sum(weights);
  tell(total > 0 ? "" : "All weights are zero: equal weights are shown.");
  return total > 0 ? weights.map(weight => weight / total) : equalWeights();
}

function choose(weights) {
  const place = nearest(weights);
  const gap = facts.preferences
    ? sum(facts.preferences[place].map((w, i) => Math.abs(w - weights[i])))
    : 0;
  if (!facts.live || gap < 1e-6) state.point = pointAt(place);
  else state.point = {weights, place: null, values: state.point.values};
  changed("point");
  if (facts.live) request();
}

const choosePlace = place => choose(facts.preferences[place]);

function pin(name) {
  state.pins[name] = state.point;
  if (name === "A" && state.against === "equal") state.against = "equal";
  changed("pins", "point");
}

function unpin() {
  state.pins.A = state.pins.B = null;
  state.against = "equal";
  changed("pins", "point");
  if (facts.live) request();
}

// The rows of the chosen list under a preference: of the page's facts, or of the explorer.
function itemsOf() {
  if (facts.live) return state.items;
  const list = facts.examples.lists[state.list];
  const [now, before] = [state.point.place, baselinePoint(state.against).place];
  return list.labels
    .map((labels, row) => ({
      rank: list.rank[now][row],
      before: list.rank[before][row],
      score: list.score[now][row],
      values: list.values.map(column => column[row]),
      predictions: rowOf(list.predictions, now)[row],
      labels,
    }))
    .sort((one, other) => one.rank - other.rank);
}

async function ask(path) {
  // what fails is told, and the page goes on with the next request
  try {
    const response = await fetch(path);
    const answer = await response.json().catch(() => ({error: `status ${response.status}`}));
    if (!response.ok && !answer.error) answer.error = `status ${response.status}`;
    return answer.error ? {error: answer.error} : answer;
  } catch (error) {
    return {error: `No answer (${error.message}): is the explorer still running?`};
  }
}

let busy = false,
  again = false;
async function request() {
  // one request at a time; the last position wins
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  try {
    do {
      again = false;
      const asked = state.point;
      const query = new URLSearchParams({
        preference: asked.weights,
        list: state.list,
        baseline: baselinePoint(state.against).weights,
      });
      const answer = await ask(`at?${query}`);
      if (answer.error) {
        tell(answer.error);
        continue;
      }
      tell("");
      if (again) continue;
      state.items = answer.list;
      if (state.point === asked) state.point = {...asked, values: answer.values};
      changed("point");
    } while (again);
  } finally {
    busy = false;
  }
}
