// The page follows the system's colours until its reader chooses; the choice is kept where the browser allows.
(function () {
  const button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const key = "fastreid-theme";

  function stored() {
    try { return localStorage.getItem(key); } catch { return null; } // no storage for files in some browsers
  }

  function isDark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : system.matches;
  }

  function show() {
    button.textContent = isDark() ? "Light mode" : "Dark mode";
  }

  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    try { localStorage.setItem(key, theme); } catch { /* kept for this visit only */ }
    show();
  });
  system.addEventListener("change", show);
  if (["light", "dark"].includes(stored())) document.documentElement.dataset.theme = stored();
  show();
})();

// An element with attributes and children: strings become text, so nothing of the data is read as HTML.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
