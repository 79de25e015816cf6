// Light or dark, before anything is painted. A choice made with the switch counts more than the system's.
"use strict";
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("mdm.theme");
  } catch {
    // Storage may be forbidden; the system's colours do then.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
