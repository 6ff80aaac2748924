// Curves, bars and maps as SVG. Pointer or arrow keys step through the values, which a line of text reads out.
(function () {
  const SIZE = { width: 460, height: 310, left: 48, right: 22, top: 12, bottom: 46 };
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

  // At most seven round values in the range, no nearer than the smallest step.
  function ticksOf([low, high], smallest) {
    const rough = (high - low) / 6;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = Math.max(smallest, power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999));
    const ticks = [];
    for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) ticks.push(Number(value.toPrecision(6)));
    return ticks;
  }

  function axes(chart, x, y) {
    const { width, height, left, right, top, bottom } = SIZE;
    const group = svg("g", { class: "axes" });
    if (chart.ticks) {
      for (const tick of ticksOf(chart.y_range, chart.smallest_step)) {
        group.append(svg("line", { x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
          svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
      }
      for (const tick of ticksOf(chart.x_range, chart.smallest_step)) {
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

  // Hues of persons who follow each other are far apart (the golden angle).
  const hueOf = (person) => ((person * 137.508) % 360).toFixed(1);

  const DRAW = {
    line: (chart, x, y) => chart.series.map((series, number) =>
      svg("polyline", { class: `line-${number % 6}`, points: series.points.map(([a, b]) => `${x(a)},${y(b)}`).join(" ") })),
    points: (chart, x, y) => chart.series.flatMap((series, number) => series.points.map(([a, b], index) => {
      const shape = mark(number, x(a), y(b));
      shape.style.setProperty("--hue", hueOf(series.persons[index]));
      if (series.persons[index] < 0) shape.classList.add("nobody");
      return shape;
    })),
    bars: (chart, x, y) => chart.series[0].points.map(([a, b], index, all) => {
      const width = (x(all[1][0]) - x(all[0][0])) * 0.86;
      const kind = a > 0 ? "bar-up" : a < 0 ? "bar-down" : "bar-same";
      return svg("rect", { class: kind, x: x(a) - width / 2, width, y: y(b), height: Math.max(0, y(0) - y(b)), rx: 1.5 });
    }),
  };

  // Where the values are on the chart, and what is said of each.
  function stopsOf(chart, x, y) {
    if (chart.kind === "line") {
      return columnsOf(chart).map(([a, values]) => ({
        x: x(a),
        places: values.filter((value) => value !== undefined).map((value) => [x(a), y(value)]),
        text: `${chart.x_label} ${a}: ` + chart.series.filter((_, number) => values[number] !== undefined)
          .map((series) => `${series.name} ${shown(values[chart.series.indexOf(series)], chart)}`).join(", "),
      }));
    }
    const all = chart.series.flatMap((series) => series.points.map(([a, b], index) => ({
      x: x(a), places: [[x(a), y(b)]], text: series.labels[index], person: series.persons[index], image: series.images?.[index],
    })));
    for (const stop of all) {
      if (stop.person >= 0) stop.others = () => all.filter((other) => other.person === stop.person).map((other) => other.places[0]);
    }
    return all;
  }

  const shown = (value, chart) => (chart.smallest_step < 1 ? String(value) : value.toFixed(1));

  // Each x of any series with the series' values there.
  function columnsOf(chart) {
    const maps = chart.series.map((series) => new Map(series.points));
    const xs = [...new Set(chart.series.flatMap((series) => series.points.map(([a]) => a)))].sort((a, b) => a - b);
    return xs.map((a) => [a, maps.map((map) => map.get(a))]);
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
      const circle = (r) => ([cx, cy]) => svg("circle", { cx, cy, r });
      rings.replaceChildren(...(stop.others?.() ?? []).map(circle(5)), ...stop.places.map(circle(stop.others ? 8 : 5.5)));
      showPicture(area, stop);
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

  // The picture of a point of a map, on the side of it that has room.
  function showPicture(area, stop) {
    area.querySelector(".preview")?.remove();
    const entry = pageData.images[stop.image];
    if (!entry) return;
    const right = stop.x < SIZE.width / 2;
    const image = make("img", { class: "preview", src: entry.src, alt: "" });
    image.style.left = `${(100 * (stop.x + (right ? 14 : -14))) / SIZE.width}%`;
    image.style.top = `${(100 * stop.places[0][1]) / SIZE.height}%`;
    image.style.translate = `${right ? "0" : "-100%"} ${stop.places[0][1] < SIZE.height / 2 ? "0" : "-100%"}`;
    area.append(image);
  }

  // A map is coloured by person until its reader wants the views.
  function colouring(chart, area) {
    if (chart.kind !== "points") return null;
    const select = make("select", {}, make("option", { value: "persons" }, "person"), make("option", { value: "" }, "view"));
    const apply = () => area.classList.toggle("persons", select.value === "persons");
    select.addEventListener("input", apply);
    apply();
    return make("label", { class: "colouring" }, "Colours ", select);
  }

  function legend(chart) {
    if (chart.kind === "bars") return null;
    const items = chart.series.map((series, number) => {
      const sample = svg("svg", { viewBox: "0 0 26 12", width: 26, height: 12, "aria-hidden": "true" },
        chart.kind === "line" ? svg("polyline", { class: `line-${number % 6}`, points: "0,6 26,6" }) : mark(number, 13, 6));
      return make("li", {}, sample, ` ${series.name}`);
    });
    return make("ul", { class: "legend" }, ...items);
  }

  function valueTable(chart) {
    const heads = [chart.x_label, ...chart.series.map((series) => series.name)];
    const rows = columnsOf(chart).map(([a, values]) =>
      make("tr", {}, make("th", { scope: "row" }, String(a)), ...values.map((value) => make("td", {}, String(value ?? "")))));
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
    figure.append(...[legend(chart), colouring(chart, area), area, readout, details(chart)].filter(Boolean));
  }
})();
