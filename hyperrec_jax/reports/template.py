"""The fixed parts of the page: its style, its script and its frame."""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 72rem; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin: 2rem 0 .25rem; }
dl { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0; }
dl div { background: #f2f5f8; border-radius: .4rem; padding: .4rem .9rem; }
dt { font-size: .8rem; color: #444; } dd { margin: 0; font-size: 1.15rem; font-weight: 600; }
p { margin: .25rem 0 .5rem; color: #333; } .warning { border-left: 4px solid #D55E00;
  padding-left: .75rem; margin-top: 1rem; }
.wide { overflow-x: auto; margin: 0; } figure svg { max-width: 100%; height: auto;
  min-width: calc(var(--panels) * 17rem); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #ddd;
  white-space: nowrap; }
thead th { background: #f2f5f8; padding: 0; } small { color: #555; }
th button { all: unset; cursor: pointer; padding: .4rem .6rem; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072B2; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.settings th, .settings td { text-align: left; font-weight: 400; white-space: normal; }
summary { cursor: pointer; font-weight: 600; margin-top: .75rem; } a { color: #0060a0; }
@media (min-width: 60rem) { section details { display: inline-block; vertical-align: top;
  margin-right: 3rem; } }
@media print { body { max-width: none; padding: 0; font-size: 11px; } .wide { overflow: visible; }
  section { break-inside: avoid; } figure svg { min-width: 0; } a[download] { display: none; }
  table { font-size: 8px; } th, td { padding: .1rem .25rem; }
  td small { display: block; font-size: 6px; }
  #front th, #front td, th button { padding: .1rem; } #front th { white-space: normal; }
}
"""

SCRIPT = """
const table = document.getElementById("front");
table.tHead.querySelectorAll("th").forEach((head, column) => {
  head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    table.tHead.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const value = row => Number(row.cells[column].dataset.value);
    [...table.tBodies[0].rows].sort((a, b) => sign * (value(a) - value(b)))
      .forEach(row => table.tBodies[0].append(row));
  });
});
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<dl>{cards}</dl>
{warning}
{body}
<script>{script}</script>
</body>
</html>
"""
