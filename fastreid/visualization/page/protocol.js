// The page shows one protocol at a time, or all of them: what is about another one is hidden.
(function () {
  const select = document.getElementById("protocol");
  if (!select) return;
  select.closest("[hidden]").hidden = false; // of no use without scripts, where everything shows

  function show() {
    for (const element of document.querySelectorAll("[data-protocol]")) {
      element.hidden = select.value !== "" && element.dataset.protocol !== select.value;
    }
  }

  select.addEventListener("input", show);
  show();
})();
