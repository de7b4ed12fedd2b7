// Charts by uPlot (https://github.com/leeoniya/uPlot, MIT): axes and ticks are its own, and points
// are painted on its canvas. Scales are fixed by the data, so that nothing moves while one drags.

const charts = []; // functions that draw a chart anew, for another width or theme

function decimals(step) {
  for (let digits = 0; digits < 9; digits++)
    if (Math.abs(Number(step.toFixed(digits)) - step) < 1e-10) return digits;
  return 9;
}

function axis(label, side) {
  return {
    label,
    labelFont: "13px system-ui, sans-serif",
    font: "12px system-ui, sans-serif",
    stroke: colour("muted"),
    grid: {stroke: colour("grid"), width: 1},
    ticks: {stroke: colour("line"), width: 1},
    labelSize: 20,
    size: side === "y" ? 60 : 36,
    space: side === "y" ? 34 : 70,
    values: (plot, splits, index, space, step) =>
      splits.map(value => value.toFixed(decimals(step))),
  };
}

// The ends of some numbers with a margin; null where there is nothing to draw.
function around(values, margin = 0.06) {
  const kept = values.filter(value => !missing(value) && Number.isFinite(value));
  if (!kept.length) return null;
  const low = Math.min(...kept),
    high = Math.max(...kept);
  const pad = margin * (high - low) || Math.abs(high) * 1e-3 || 1e-3;
  return [low - pad, high + pad];
}

// A chart in a host of its own height. `data` is uPlot's, `paint` draws on top of its canvas.
function chart(host, describe) {
  let plot = null;
  const again = () => {
    const width = host.clientWidth;
    if (!width) return;
    plot?.destroy();
    const {
      x,
      y,
      xRange,
      yRange,
      data = [xRange, [null, null]],
      series = [],
      bands = [],
      paint,
    } = describe();
    plot = new uPlot(
      {
        width,
        height: host.clientHeight,
        legend: {show: false},
        cursor: {show: false},
        padding: [8, 12, 0, 0],
        scales: {x: {time: false, range: () => xRange}, y: {range: () => yRange}},
        axes: [axis(x, "x"), axis(y, "y")],
        series: [{}, ...(series.length ? series : [{show: false}])],
        bands,
        hooks: {draw: paint ? [kept(paint)] : []},
      },
      data,
      host,
    );
  };
  charts.push(again);
  new ResizeObserver(entries => {
    if (Math.abs(entries[0].contentRect.width - (plot?.width ?? 0)) > 1) again();
  }).observe(host);
  again();
  return {redraw: () => (plot ? plot.redraw(false) : again()), again, plot: () => plot};
}

// uPlot remembers how it left its canvas.
const kept = paint => plot => {
  const {left, top, width, height} = plot.bbox;
  plot.ctx.save();
  plot.ctx.beginPath();
  plot.ctx.rect(left, top, width, height);
  plot.ctx.clip();
  paint(plot);
  plot.ctx.restore();
};

const placed = (plot, x, y) => [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];

function disc(plot, x, y, size, {fill, stroke, width = 2} = {}) {
  if (missing(x) || missing(y)) return;
  const {ctx} = plot,
    scale = uPlot.pxRatio,
    [left, top] = placed(plot, x, y);
  ctx.beginPath();
  ctx.arc(left, top, size * scale, 0, 2 * Math.PI);
  if (fill) {
    ctx.fillStyle = fill;
    ctx.fill();
  }
  if (stroke) {
    ctx.strokeStyle = stroke;
    ctx.lineWidth = width * scale;
    ctx.stroke();
  }
}

function segment(plot, from, to, stroke, width = 1, dash = []) {
  if ([...from, ...to].some(missing)) return;
  const {ctx} = plot,
    scale = uPlot.pxRatio;
  ctx.save();
  ctx.beginPath();
  ctx.moveTo(...placed(plot, ...from));
  ctx.lineTo(...placed(plot, ...to));
  ctx.strokeStyle = stroke;
  ctx.lineWidth = width * scale;
  ctx.setLineDash(dash.map(length => length * scale));
  ctx.stroke();
  ctx.restore();
}

function letter(plot, x, y, text) {
  const {ctx} = plot,
    scale = uPlot.pxRatio,
    [left, top] = placed(plot, x, y);
  ctx.font = `bold ${13 * scale}px system-ui, sans-serif`;
  ctx.textAlign = "center";
  ctx.lineWidth = 4 * scale;
  ctx.strokeStyle = colour("panel");
  ctx.strokeText(text, left, top - 12 * scale);
  ctx.fillStyle = colour("ink");
  ctx.fillText(text, left, top - 12 * scale);
}

// Tells the point under the pointer, and chooses it on a click.
function pointing(host, drawn, points, lines, click) {
  const tip = make("div", {class: "tip", hidden: true});
  host.append(tip);
  const under = event => {
    const plot = drawn.plot();
    if (!plot) return null;
    const box = plot.over.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    let best = null,
      least = 24;
    points().forEach((point, index) => {
      if (point.some(missing)) return;
      const away = Math.hypot(
        plot.valToPos(point[0], "x") - left,
        plot.valToPos(point[1], "y") - top,
      );
      if (away < least) [best, least] = [index, away];
    });
    return best;
  };
  host.addEventListener("pointermove", event => {
    const index = under(event);
    tip.hidden = index === null;
    if (index === null) return;
    tip.replaceChildren(...lines(index).map(line => make("div", {}, line)));
    const box = host.getBoundingClientRect();
    const left = event.clientX - box.left + 14,
      top = event.clientY - box.top + 10;
    tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${top + tip.offsetHeight > box.height ? top - tip.offsetHeight - 24 : top}px`;
  });
  host.addEventListener("pointerleave", () => {
    tip.hidden = true;
  });
  host.addEventListener("click", event => {
    const index = under(event);
    if (index !== null) click(index);
  });
}
