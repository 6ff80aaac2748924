// Curves, bars and maps as SVG. Pointer or arrow keys step through the values, which a line of text reads out.
(function () {
  const SIZE = { width: 460, height: 310, left: 48, right: 14, top: 12, bottom: 46 };
  const HINT = "Point at the chart, or focus it and use the arrow keys.";

  function svg(tag, attributes = {}, ...children) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function scale([low, high], start, end) {
    return (value) => start + ((value - low) / (high - low)) * (end - start);
  }

  // At most seven round values in the range.
  function ticksOf([low, high]) {
    const rough = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(1, power * [1, 2, 5, 10].find((factor) => factor * power >= rough));
    const ticks = [];
    for (let value = Math.ceil(low / step) * step; value <= high + 1e-9; value += step) ticks.push(Math.round(value * 100) / 100);
    return ticks;
  }

  function axes(chart, x, y) {
    const { width, height, left, right, top, bottom } = SIZE;
    const group = svg("g", { class: "axes" });
    if (chart.ticks) {
      for (const tick of ticksOf(chart.y_range)) {
        group.append(svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
          svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
      }
      for (const tick of ticksOf(chart.x_range)) {
        group.append(svg("text", { x: x(tick), y: height - bottom + 19, "text-anchor": "middle" }, String(tick)));
      }
      group.append(svg("line", { class: "base", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
    }
    group.append(svg("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, chart.x_label),
      svg("text", { transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, chart.y_label));
    return group;
  }

  // A shape for each series, so that colour is not needed to tell them apart.
  function mark(series, x, y) {
    const r = 3.6;
    const shapes = [
      `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
      `M${x} ${y - r - 0.8}l${r + 0.8} ${2 * r}h${-2 * r - 1.6}z`,
      `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    ];
    return svg("path", { class: `mark-${series % 3}`, d: shapes[series % 3] });
  }

  const DRAW = {
    line: (chart, x, y) => chart.series.map((series, number) =>
      svg("polyline", { class: `line-${number % 3}`, points: series.points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") })),
    points: (chart, x, y) => chart.series.flatMap((series, number) => series.points.map(([a, b]) => mark(number, x(a), y(b)))),
    bars: (chart, x, y) => chart.series[0].points.map(([a, b], index, all) => {
      const width = (x(all[1][0]) - x(all[0][0])) * 0.86;
      const kind = a > 0 ? "bar-up" : a < 0 ? "bar-down" : "bar-same";
      return svg("rect", { class: kind, x: x(a) - width / 2, width, y: y(b), height: Math.max(0, y(0) - y(b)), rx: 1.5 });
    }),
  };

  // Where the values are on the chart, and what is said of each.
  function stopsOf(chart, x, y) {
    if (chart.kind === "line") {
      const longest = chart.series.reduce((a, b) => (b.points.length > a.points.length ? b : a));
      return longest.points.map(([a], index) => ({
        x: x(a),
        places: chart.series.filter((s) => s.points[index]).map((s) => [x(a), y(s.points[index][1])]),
        text: `${chart.x_label} ${a}: ` + chart.series.filter((s) => s.points[index])
          .map((s) => `${s.name} ${s.points[index][1].toFixed(1)}`).join(", "),
      }));
    }
    return chart.series.flatMap((series) => series.points.map(([a, b], index) => ({
      x: x(a), places: [[x(a), y(b)]], text: series.labels[index],
    })));
  }

  function nearestStop(chart, stops, px, py) {
    const distance = (stop) => (chart.kind === "points" ? Math.hypot(stop.x - px, stop.places[0][1] - py) : Math.abs(stop.x - px));
    return stops.reduce((best, stop, index) => (distance(stop) < distance(stops[best]) ? index : best), 0);
  }

  function explore(chart, area, drawing, stops) {
    const readout = make("p", { class: "readout", "aria-live": "polite" }, HINT);
    const rings = svg("g", { class: "rings" });
    drawing.append(rings);
    let current = -1;

    function show(index) {
      current = Math.max(0, Math.min(stops.length - 1, index));
      const stop = stops[current];
      rings.replaceChildren(...stop.places.map(([cx, cy]) => svg("circle", { cx, cy, r: 5.5 })));
      if (chart.kind === "line") rings.prepend(svg("line", { x1: stop.x, x2: stop.x, y1: SIZE.top, y2: SIZE.height - SIZE.bottom }));
      readout.textContent = stop.text;
    }

    area.addEventListener("pointermove", (event) => {
      const box = drawing.getBoundingClientRect();
      const factor = SIZE.width / box.width;
      show(nearestStop(chart, stops, (event.clientX - box.left) * factor, (event.clientY - box.top) * factor));
    });
    area.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: current + 1, ArrowLeft: current < 0 ? stops.length - 1 : current - 1, Home: 0, End: stops.length - 1 };
      if (!(event.key in steps)) return;
      event.preventDefault();
      show(steps[event.key]);
    });
    return readout;
  }

  function legend(chart) {
    if (chart.kind === "bars") return null;
    const items = chart.series.map((series, number) => {
      const sample = svg("svg", { viewBox: "0 0 26 12", width: 26, height: 12, "aria-hidden": "true" },
        chart.kind === "line" ? svg("polyline", { class: `line-${number % 3}`, points: "0,6 26,6" }) : mark(number, 13, 6));
      return make("li", {}, sample, ` ${series.name}`);
    });
    return make("ul", { class: "legend" }, ...items);
  }

  function valueTable(chart) {
    const heads = [chart.x_label, ...chart.series.map((series) => series.name)];
    const rows = chart.series[0].points.map(([a], index) =>
      make("tr", {}, make("th", { scope: "row" }, String(a)),
        ...chart.series.map((series) => make("td", {}, String(series.points[index]?.[1] ?? "")))));
    return make("table", { class: "values" }, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows));
  }

  function details(chart) {
    if (chart.kind === "points") return null;
    const element = make("details", {}, make("summary", {}, "Values as a table"));
    element.addEventListener("toggle", () => {
      if (element.open && !element.querySelector("table")) {
        element.append(make("div", { class: "scroll values-box", tabindex: "0", role: "region", "aria-label": `Values: ${chart.title}` }, valueTable(chart)));
      }
    });
    return element;
  }

  for (const figure of document.querySelectorAll("[data-chart]")) {
    const chart = pageData.charts[figure.dataset.chart];
    const x = scale(chart.x_range, SIZE.left, SIZE.width - SIZE.right);
    const y = scale(chart.y_range, SIZE.height - SIZE.bottom, SIZE.top);
    const drawing = svg("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", "aria-label": chart.title },
      axes(chart, x, y), ...DRAW[chart.kind](chart, x, y));
    const area = make("div", { class: "drawing", tabindex: "0", role: "group", "aria-label": `${chart.title}. ${HINT}` }, drawing);
    const readout = explore(chart, area, drawing, stopsOf(chart, x, y));
    figure.append(...[legend(chart), area, readout, details(chart)].filter(Boolean));
  }
})();
