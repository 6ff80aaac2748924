// A picture opens large beside the query's. Arrow keys step through its list, Escape closes.
const openViewer = (function () {
  const { images } = pageData;
  let dialog, sides, items, current;

  function side() {
    const parts = { picture: make("div", { class: "large" }), head: make("p", { class: "large-head" }), text: make("p", { class: "faint" }) };
    return { ...parts, figure: make("figure", {}, parts.picture, make("figcaption", {}, parts.head, parts.text)) };
  }

  function fill({ picture, head, text, figure }, item) {
    const { src, text: described, file, lost } = images[item.image];
    picture.replaceChildren(src ? make("img", { src, alt: "" }) : make("span", {}, lost));
    head.textContent = item.head;
    text.textContent = [described, file].filter(Boolean).join("\n");
    figure.className = item.kind;
  }

  function show(index) {
    current = Math.max(0, Math.min(items.length - 1, index));
    fill(sides[1], items[current]);
    const useless = { before: current === 0, after: current === items.length - 1 };
    for (const [name, is] of Object.entries(useless)) { // a disabled one would lose the focus, and so the keys
      dialog.querySelector(`[name=${name}]`).setAttribute("aria-disabled", is);
    }
  }

  function build() {
    sides = [side(), side()];
    const button = (name, words, action) => {
      const element = make("button", { type: "button", name, autofocus: name === "after" }, words);
      element.addEventListener("click", action);
      return element;
    };
    dialog = make("dialog", { class: "viewer", "aria-label": "Pictures, large" },
      make("div", { class: "viewer-buttons" },
        button("before", "\u2190 Before", () => show(current - 1)), button("after", "Next \u2192", () => show(current + 1)),
        button("close", "Close", () => dialog.close())),
      make("div", { class: "viewer-pair", "aria-live": "polite" }, ...sides.map((each) => each.figure)));
    dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) show(current + step);
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // beside the content
    });
    document.body.append(dialog);
  }

  // `query` and each of `found`: {image, head, kind}.
  return function (query, found, index) {
    if (!dialog) build();
    items = found;
    fill(sides[0], query);
    sides[1].figure.hidden = found.length === 0;
    if (found.length) show(index);
    for (const name of ["before", "after"]) dialog.querySelector(`[name=${name}]`).hidden = found.length === 0;
    dialog.showModal();
  };
})();
