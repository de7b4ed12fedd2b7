// Puts the page together.

function themes() {
  const root = document.documentElement,
    button = $("#theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const apply = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `${isDark() ? "light" : "dark"} colours`);
    charts.forEach(again => again());
  };
  try {
    // a page opened from a file may have no storage
    const kept = localStorage.getItem("theme");
    if (kept) root.dataset.theme = kept;
  } catch {
    /* the system's choice then */
  }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem("theme", root.dataset.theme);
    } catch {
      /* not kept then */
    }
    apply();
  });
  dark.addEventListener("change", apply);
  let before = null,
    closed = [];
  window.addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    closed = [...document.querySelectorAll("details.print:not([open])")];
    closed.forEach(each => {
      each.open = true;
    });
    document.body.classList.add("printing");
    charts.forEach(again => again());
  });
  window.addEventListener("afterprint", () => {
    if (before === undefined) delete root.dataset.theme;
    else root.dataset.theme = before;
    closed.forEach(each => {
      each.open = false;
    });
    document.body.classList.remove("printing");
    charts.forEach(again => again());
  });
  apply();
}

state.point = facts.preferences ? pointAt(nearest(equalWeights())) : pointAt(0);
workspace($("#workspace"));
choice($("#choice"));
examples($("#examples"));
segments($("#segments"));
byWeight($("#by-weight"));
calibration($("#calibration"));
experts($("#experts"));
training($("#training"));
frontTable();
themes();
changed("view", "point", "pins", "choice", "against");
if (facts.live) choose(equalWeights());
