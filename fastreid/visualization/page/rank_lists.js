// The cards of queries with what was found for them, and the form that filters and sorts them.
(function () {
  const PAGE = 10; // cards that "show more" adds
  const target = document.getElementById("lists");
  if (!target) return;
  const { images, lists, runs = [], value_name: valueName } = pageData;
  const form = document.getElementById("filters");
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  let chosen = lists;
  let shown = 0;

  const percent = (value) => (100 * value).toFixed(1);
  const MARKS = { true: ["match", "\u2713", "true match"], false: ["miss", "\u2717", "other person"], null: ["unknown", "", ""] };

  function picture(index, description) {
    const { src, text, file } = images[index];
    const alt = [description, text].filter(Boolean).join(": ");
    return make("img", { src, alt, title: [file, text].filter(Boolean).join("\n"), decoding: "async" });
  }

  function foundItem(found) {
    const [kind, mark, words] = MARKS[found.match ?? null];
    const value = found.value.toFixed(3);
    const description = `Rank ${found.rank}${words && ", " + words}, ${valueName} ${value}`;
    return make("li", { class: `found ${kind}` },
      make("div", { class: "frame" }, picture(found.image, description),
        mark && make("span", { class: "mark", "aria-hidden": "true" }, mark)),
      make("p", { class: "caption" }, make("b", {}, `${found.rank}`), ` ${value}`),
      make("p", { class: "caption faint" }, (images[found.image].short ?? images[found.image].text).replace(/ (\d+)$/, "\u00a0$1")));
  }

  function foundRow(row, list) {
    const run = runs[row.run];
    const items = row.found.map(foundItem);
    if (row.next) {
      items.push(make("li", { class: "gap" }, "next true match"), foundItem(row.next));
    }
    const label = `${run ? run + ": " : ""}found for ${list.title}`;
    return make("div", { class: "row" },
      run && runs.length > 1 ? rowHead(row, run) : null,
      make("ol", { class: "strip", tabindex: "0", "aria-label": label }, ...items));
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
        make("div", { class: "frame" }, picture(list.image, "Query")),
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
    if (count) count.textContent = `${chosen.length} of ${lists.length} rank lists`;
    document.getElementById("none")?.toggleAttribute("hidden", chosen.length > 0);
  }

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
      return (!wanted.protocol || list.protocol === wanted.protocol) && (!wanted.view || list.view === wanted.view)
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
