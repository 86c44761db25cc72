"""The style sheet of the HTML pages; the colours are those of `cnn_flax.style`."""

__all__ = ["STYLE"]

STYLE = """
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
:root { --ground: #f4f6f9; }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; } }
main { max-width: 1080px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 0 0 4px; }
h3 { font-size: 1rem; margin: 24px 0 8px; }
p { margin: 0 0 12px; max-width: 72ch; overflow-wrap: anywhere; }
.above, .note, figcaption { color: var(--soft); }
.above { margin: 0 0 4px; }
.note { font-size: .9rem; margin: 14px 0 0; }
section { background: var(--paper); border: 1px solid var(--grid); padding: 20px;
  border-radius: 10px; margin-top: 20px; }
.charts { display: grid; gap: 20px; align-items: start; margin-top: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
figure { margin: 0; min-width: 0; }
.charts > figure { max-width: 720px; }
.chart img { width: 100%; height: auto; display: block; }
.keys { list-style: none; padding: 0; margin: 8px 0 0; }
.keys li { display: inline-block; margin-right: 20px; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
figcaption { font-size: .9rem; margin-top: 6px; overflow-wrap: anywhere; }
.tiles { display: grid; gap: 12px; margin: 16px 0 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
.tiles li { border-left: 3px solid var(--blue); padding-left: 10px; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.3; }
.tiles span { color: var(--soft); font-size: .9rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--grid);
  white-space: nowrap; }
th { white-space: normal; font-weight: 600; color: var(--soft); font-size: .9rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td.long, .words td { white-space: normal; overflow-wrap: anywhere; }
.words td { text-align: left; }
.words td:first-child { color: var(--soft); width: 14rem; }
.pictures { display: grid; gap: 14px 10px;
  grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)); }
.pictures img { width: 100%; aspect-ratio: 1; object-fit: contain; background: #0f172a;
  border-radius: 4px; display: block; }
.pictures .pixels { image-rendering: pixelated; }
.pictures figcaption { font-size: .85rem; line-height: 1.3; margin-top: 4px;
  color: var(--ink); }
.wrong { color: var(--vermilion); }
code, pre { background: var(--ground); border-radius: 4px; overflow-wrap: anywhere; }
code { padding: 1px 4px; }
pre { padding: 10px 12px; margin: 4px 0 14px; white-space: pre-wrap; }
details { margin-top: 12px; }
summary { cursor: pointer; font-weight: 600; }
@media (max-width: 600px) {
  body { font-size: 17px; }
  h1 { font-size: 1.45rem; }
  main { padding: 16px 8px 48px; }
  section { padding: 14px 12px; }
  .rows tr:first-child:has(th) { display: none; }
  .rows, .rows tbody { display: block; }
  .rows tr { display: block; padding: 8px 0; border-bottom: 1px solid var(--grid); }
  .rows td { display: flex; justify-content: space-between; gap: 16px; border: 0;
    padding: 2px 0; }
  .rows td:empty { display: none; }
  .rows td::before { content: attr(data-name); color: var(--soft); }
  .rows td:first-child { font-weight: 600; }
  .rows td:first-child::before { content: none; }
  .words td { display: block; padding: 2px 0; border: 0; }
  .words td:first-child { width: auto; }
  .words tr { display: block; padding: 6px 0; border-bottom: 1px solid var(--grid); }
  .words, .words tbody { display: block; }
}
"""
