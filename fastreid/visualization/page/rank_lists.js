// The cards of queries with what was found for them, and the form that filters and sorts them.
(function () {
  const PAGE = 10; // cards that "show more" adds
  const target = document.getElementById("lists");
  if (!target) return;
  const { images, lists, runs = [], value_name: valueName } = pageData;
  const form = document.getElementById("filters");
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  const protocol = document.getElementById("protocol");
  let chosen = lists;
  let shown = 0;

  const percent = (value) => (100 * value).toFixed(1);
  const MARKS = { true: ["match", "\u2713", "true match"], false: ["miss", "\u2717", "other person"], null: ["unknown", "", ""] };

  // The words under a picture that is opened large.
  function headOf(found) {
    const words = MARKS[found.match ?? null][2];
    const value = found.value == null ? "" : `, ${valueName} ${found.value.toFixed(3)}`;
    return `Rank ${found.rank}${words && ", " + words}${value}`;
  }

  // A picture in a button that opens it beside the query's, or a place for one that is gone.
  function frame(index, description, mark, open) {
    const { src, text, file, lost } = images[index];
    const title = [lost, file, text].filter(Boolean).join("\n");
    const content = src
      ? make("img", { src, alt: [description, text].filter(Boolean).join(": "), title, decoding: "async" })
      : make("span", { class: "lost", title }, make("span", { class: "spoken" }, description), lost);
    const button = make("button", { type: "button", class: "frame" }, content,
      mark ? make("span", { class: "mark", "aria-hidden": "true" }, mark) : null);
    button.addEventListener("click", open);
    return button;
  }

  function opener(list, found, place) {
    const kinds = found.map((each) => ({ image: each.image, head: headOf(each), kind: MARKS[each.match ?? null][0] }));
    return () => openViewer({ image: list.image, head: list.title, kind: "asked" }, kinds, place);
  }

  function foundItem(found, open) {
    const [kind, mark] = MARKS[found.match ?? null];
    const { short, text } = images[found.image];
    return make("li", { class: `found ${kind}` }, frame(found.image, headOf(found), mark, open),
      make("p", { class: "caption" }, make("b", {}, `${found.rank}`), found.value == null ? "" : ` ${found.value.toFixed(3)}`),
      make("p", { class: "caption faint" }, (short ?? text).replace(/ (\d+)$/, "\u00a0$1")));
  }

  // One of the pictures takes the focus of the Tab key; arrow keys go to the others.
  function strip(found, list, label, kind = "") {
    const items = found.map((each, place) => foundItem(each, opener(list, found, place)));
    const buttons = items.map((item) => item.querySelector("button"));
    buttons.forEach((button, place) => { button.tabIndex = place ? -1 : 0; });
    const element = make("ol", { class: `strip ${kind}`, "aria-label": label }, ...items);
    element.addEventListener("keydown", (event) => {
      const place = buttons.indexOf(document.activeElement) + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? NaN);
      if (!buttons[place]) return;
      event.preventDefault();
      for (const button of buttons) button.tabIndex = -1;
      buttons[place].tabIndex = 0;
      buttons[place].focus();
    });
    return element;
  }

  function foundRow(row, list) {
    const run = runs[row.run];
    const label = `${run ? run + ": " : ""}found for ${list.title}`;
    const element = strip([...row.found, row.next].filter(Boolean), list, label);
    if (row.next) element.lastChild.before(make("li", { class: "gap" }, "next true match"));
    return make("div", { class: "row" }, run && runs.length > 1 ? rowHead(row, run) : null, element, generated(row, list));
  }

  // For each view the real pictures that are nearest to what was generated for it.
  function generated(row, list) {
    if (!row.generated?.length) return null;
    return make("div", { class: "generated" }, ...row.generated.map((each) => {
      const where = each.first ? `person at rank ${each.first}` : "person not in this view";
      return make("div", {},
        make("p", { class: "row-head" }, make("b", {}, `generated ${each.view}`), `: ${where}`),
        strip(each.found, list, `nearest to the generated ${each.view} feature of ${list.title}`, "small-strip"));
    }));
  }

  function rowHead(row, run) {
    return make("p", { class: "row-head" }, make("b", {}, run), ` AP ${percent(row.ap)}, first match at rank ${row.first}`);
  }

  function change(list) {
    return list.rows.length > 1 ? list.rows[0].ap - list.rows[1].ap : 0;
  }

  function changeBadge(list) {
    if (list.rows.length < 2) return null;
    const delta = change(list);
    if (Math.abs(delta) < 5e-4) return make("span", { class: "badge" }, "= same AP");
    const better = delta > 0;
    return make("span", { class: `badge ${better ? "better" : "worse"}` },
      `${better ? "\u25b2 better" : "\u25bc worse"} by ${percent(Math.abs(delta))}`);
  }

  function facts(list) {
    const first = list.rows[0];
    return make("div", { class: "facts" },
      list.protocol !== undefined ? make("p", { class: "faint" }, list.protocol) : null,
      first.ap === undefined ? null : make("p", {}, make("b", {}, `AP ${percent(first.ap)}`)),
      first.ap === undefined ? null : make("meter", { min: 0, max: 1, value: first.ap, "aria-label": "average precision" }),
      first.first === undefined || list.rows.length > 1 ? null : make("p", { class: "faint" }, `first match: rank ${first.first}`),
      changeBadge(list));
  }

  function card(list) {
    const { text } = images[list.image];
    return make("li", { class: "card", id: list.id, tabindex: "-1" },
      make("div", { class: "query" },
        frame(list.image, "Query", null, opener(list, list.rows[0].found, 0)),
        make("div", { class: "query-text" }, make("h3", {}, list.title), text ? make("p", { class: "faint" }, text) : null, facts(list))),
      make("div", { class: "rows" }, ...list.rows.map((row) => foundRow(row, list))));
  }

  function showMore() {
    const next = chosen.slice(shown, shown + PAGE).map(card);
    target.append(...next);
    shown += next.length;
    more.hidden = shown >= chosen.length;
    return next[0];
  }

  function restart() {
    target.replaceChildren();
    shown = 0;
    showMore();
    if (count) count.textContent = `${chosen.length} of ${lists.filter(ofProtocol).length} rank lists`;
    document.getElementById("none")?.toggleAttribute("hidden", chosen.length > 0);
  }

  const ofProtocol = (list) => !protocol?.value || list.protocol === protocol.value;

  const ORDERS = {
    worst: (a, b) => a.rows[0].ap - b.rows[0].ap,
    best: (a, b) => b.rows[0].ap - a.rows[0].ap,
    improved: (a, b) => change(b) - change(a),
    worsened: (a, b) => change(a) - change(b),
    file: (a, b) => a.number - b.number,
  };

  function applyFilters() {
    const wanted = Object.fromEntries(new FormData(form));
    const low = wanted.low === "" ? 0 : Number(wanted.low);
    const high = wanted.high === "" ? 100 : Number(wanted.high);
    chosen = lists.filter((list) => {
      const ap = 100 * list.rows[0].ap;
      return ofProtocol(list) && (!wanted.view || list.view === wanted.view)
        && ap >= low && ap <= high && (!wanted.missed || list.rows[0].found.every((found) => !found.match));
    }).sort(ORDERS[wanted.order]);
    restart();
  }

  function showAll() {
    form.reset();
    applyFilters();
  }

  function showList(id) {
    showAll();
    while (!document.getElementById(id) && shown < chosen.length) showMore();
    const element = document.getElementById(id);
    element.scrollIntoView({ block: "start" });
    element.focus({ preventScroll: true });
  }

  more.addEventListener("click", () => {
    const first = showMore();
    if (more.hidden) first?.focus(); // the button that had the focus is gone
  });
  if (form) {
    form.addEventListener("input", applyFilters);
    protocol?.addEventListener("input", applyFilters);
    document.getElementById("show-all").addEventListener("click", showAll);
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const link of document.querySelectorAll("a[data-list]")) {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        showList(link.dataset.list);
      });
    }
    applyFilters();
  } else {
    restart();
  }
})();
