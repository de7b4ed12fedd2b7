// Controls for a preference: a slider for two goals, a triangle for three, sliders for more.

function weightControls(host) {
  if (goals.length === 2) oneSlider(host);
  else if (goals.length === 3) triangle(host);
  else sliders(host);
}

function oneSlider(host) {
  const slider = make("input", {
    type: "range",
    min: 0,
    max: 1000,
    id: "weight",
    "aria-label": `weight of ${goals[1]} against ${goals[0]}`,
  });
  const outputs = goals.map(() => make("b"));
  slider.addEventListener("input", () => choose([1 - slider.value / 1000, slider.value / 1000]));
  // Of a fixed grid the arrows go from one preference to the next.
  slider.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
    if (!step || facts.live) return;
    event.preventDefault();
    stepAlong(1, step);
  });
  host.append(
    make("div", {class: "ends"}, ...goals.map((goal, i) => make("span", {}, goal, outputs[i]))),
    slider,
  );
  whenChanged(["point"], () => {
    const {weights} = state.point;
    if (document.activeElement !== slider || !facts.live) slider.value = 1000 * weights[1];
    slider.setAttribute(
      "aria-valuetext",
      goals.map((goal, i) => `${goal} ${weights[i].toFixed(2)}`).join(", "),
    );
    outputs.forEach((output, i) => {
      output.textContent = weights[i].toFixed(3);
    });
  });
}

// The next preference of the grid by the weight of a goal.
function stepAlong(goal, step) {
  const order = facts.preferences
    .map((_, place) => place)
    .sort((a, b) => facts.preferences[a][goal] - facts.preferences[b][goal] || a - b);
  const place = state.point.place ?? nearest(state.point.weights);
  const next = Math.max(0, Math.min(order.length - 1, order.indexOf(place) + step));
  choosePlace(order[next]);
}

function sliders(host) {
  const made = goals.map(goal => {
    const slider = make("input", {
      type: "range",
      min: 0,
      max: 1000,
      "aria-label": `weight of ${goal}`,
    });
    const output = make("output");
    slider.addEventListener("input", () =>
      choose(normalised(made.map(([each]) => Number(each.value)))),
    );
    host.append(make("label", {class: "slide"}, make("span", {title: goal}, goal), slider, output));
    return [slider, output];
  });
  whenChanged(["point"], () =>
    made.forEach(([slider, output], i) => {
      // While one drags, the others stay: what counts is their ratio.
      if (!made.some(([each]) => each === document.activeElement))
        slider.value = 1000 * state.point.weights[i];
      output.textContent = state.point.weights[i].toFixed(2);
    }),
  );
}

const short = name => (name.length > 14 ? `${name.slice(0, 12)}…` : name);

const CORNERS = [
  [20, 176],
  [220, 176],
  [120, 18],
];

function triangle(host) {
  const svg = draw("svg", {
    viewBox: "0 0 240 206",
    class: "triangle",
    tabindex: 0,
    role: "application",
    "aria-label": "Weights of three goals: drag, or use the arrow keys",
  });
  const at = weights => [0, 1].map(k => sum(weights.map((weight, i) => weight * CORNERS[i][k])));
  svg.append(
    draw("path", {class: "area", d: `M${CORNERS.map(corner => corner.join(" ")).join("L")}Z`}),
  );
  facts.preferences.forEach(weights => {
    const [cx, cy] = at(weights);
    svg.append(draw("circle", {class: "grid", cx, cy, r: 2}));
  });
  const now = draw("circle", {class: "now", r: 8});
  const anchors = ["start", "end", "middle"],
    [below, above] = [
      [0, 22],
      [0, -8],
    ];
  const labels = CORNERS.map(([x, y], i) =>
    draw("text", {
      x: i === 0 ? 2 : i === 1 ? 238 : x,
      y: y + (i === 2 ? above : below)[1],
      "text-anchor": anchors[i],
    }),
  );
  svg.append(now, ...labels);
  const move = event => {
    const box = svg.getBoundingClientRect();
    const [x, y] = [
      ((event.clientX - box.left) * 240) / box.width,
      ((event.clientY - box.top) * 206) / box.height,
    ];
    const [[x0, y0], [x1], [x2, y2]] = CORNERS;
    const third = (y0 - y) / (y0 - y2),
      second = (x - x0 - third * (x2 - x0)) / (x1 - x0);
    choose(normalised([1 - second - third, second, third].map(weight => Math.max(0, weight))));
  };
  svg.addEventListener("pointerdown", event => {
    svg.setPointerCapture(event.pointerId);
    move(event);
  });
  svg.addEventListener("pointermove", event => {
    if (event.buttons) move(event);
  });
  svg.addEventListener("keydown", event => {
    const step = {
      ArrowLeft: [0.05, -0.05, 0],
      ArrowRight: [-0.05, 0.05, 0],
      ArrowUp: [-0.025, -0.025, 0.05],
      ArrowDown: [0.025, 0.025, -0.05],
    }[event.key];
    if (!step) return;
    event.preventDefault();
    if (facts.live) {
      const moved = state.point.weights.map((weight, i) => Math.max(0, weight + step[i]));
      choose(normalised(moved));
    } else {
      toNeighbour(step);
    }
  });
  host.append(svg);
  whenChanged(["point"], () => {
    const [cx, cy] = at(state.point.weights);
    now.setAttribute("cx", cx);
    now.setAttribute("cy", cy);
    labels.forEach((label, i) => {
      label.textContent = `${short(goals[i])} ${state.point.weights[i].toFixed(2)}`;
    });
  });
}

// The nearest preference of the grid that lies in a direction, if any.
function toNeighbour(step) {
  const from = state.point.weights;
  let best = null,
    least = Infinity;
  facts.preferences.forEach((weights, place) => {
    const way = weights.map((weight, i) => weight - from[i]);
    const along = sum(way.map((each, i) => each * step[i])),
      length = Math.hypot(...way);
    const cosine = along / (length * Math.hypot(...step) || 1);
    if (cosine > 0.6 && length / cosine < least) [best, least] = [place, length / cosine];
  });
  if (best !== null) choosePlace(best);
}
