/** The page's style sheet: light and dark as the reader's system has it, wide and narrow. Nothing is loaded. */

export const STYLE = `
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #16191d; --soft: #5a6371; --line: #e1e5ea; --faint: #eef1f4;
  --good: #0b7a4b; --bad: #b3261e; --notice: #fff6e0; --notice-line: #e3b341;
  --none: #7b8491; --nginx: #b7791f; --haproxy: #9b4fa5; --ztunnel: #2b6fc4; --culvert: #0a8f62;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101318; --card: #181c22; --ink: #e8ebef; --soft: #9aa4b1; --line: #2a3038; --faint: #20262e;
    --good: #4cc38a; --bad: #ff7a70; --notice: #2c2613; --notice-line: #8a6d1f;
    --none: #98a2b0; --nginx: #e0a84a; --haproxy: #cf8ad8; --ztunnel: #6fa8ee; --culvert: #3ecf96;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1200px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 6px; letter-spacing: -0.005em; }
h3 { font-size: 16px; margin: 0; }
p { margin: 0 0 10px; }
.soft { color: var(--soft); }
.facts { color: var(--soft); overflow-wrap: anywhere; }
.notice {
  background: var(--notice); border: 1px solid var(--notice-line); border-radius: 8px; padding: 10px 14px; margin: 14px 0 0;
  overflow-wrap: anywhere;
}
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 18px; min-width: 0; }
.cards { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); margin-top: 14px; }
.card header { display: flex; gap: 12px; justify-content: space-between; align-items: baseline; flex-wrap: wrap; }
.card header span { color: var(--soft); font-size: 13px; }
.card > p { color: var(--soft); font-size: 14px; margin: 2px 0 12px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--faint); white-space: nowrap; }
th { font-weight: 500; color: var(--soft); font-size: 13px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { color: var(--ink); font-weight: 400; font-size: 14px; }
.overview th:first-child { white-space: normal; min-width: 190px; }
.overview td.wide { padding: 2px 10px; width: 320px; }
.ours { font-weight: 650; }
.key { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 7px; background: currentColor; }
.key-none { color: var(--none); } .key-nginx { color: var(--nginx); } .key-haproxy { color: var(--haproxy); }
.key-ztunnel { color: var(--ztunnel); } .key-culvert { color: var(--culvert); }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
svg.plot { max-width: 560px; margin: 0 0 8px; }
svg.strip { min-width: 120px; }
svg text { font-size: 12.5px; fill: var(--ink); dominant-baseline: central; }
.axis line { stroke: var(--line); stroke-width: 1; }
.axis text { fill: var(--soft); text-anchor: middle; font-size: 11.5px; }
.side text { text-anchor: end; }
.name { text-anchor: end; } .figure { text-anchor: end; font-weight: 600; font-variant-numeric: tabular-nums; }
.line-name { text-anchor: end; font-weight: 600; }
.arm-none { --arm: var(--none); } .arm-nginx { --arm: var(--nginx); } .arm-haproxy { --arm: var(--haproxy); }
.arm-ztunnel { --arm: var(--ztunnel); } .arm-culvert { --arm: var(--culvert); }
.arm-culvert .name { font-weight: 650; }
circle { fill: var(--arm); fill-opacity: 0.62; stroke: var(--card); stroke-width: 0.8; }
circle.beyond { fill: none; stroke: var(--arm); stroke-width: 1.6; }
.range { stroke: var(--arm); stroke-opacity: 0.35; stroke-width: 2; }
.median { stroke: var(--arm); stroke-width: 3; stroke-linecap: round; }
.base { stroke: var(--line); stroke-width: 1; } .level { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 2; }
.target { fill: var(--soft); }
.line path { fill: none; stroke: var(--arm); stroke-width: 2.2; stroke-linejoin: round; }
.line circle { fill-opacity: 1; }
.line-0 { --arm: var(--culvert); } .line-1 { --arm: var(--ztunnel); } .line-2 { --arm: var(--nginx); } .line-3 { --arm: var(--haproxy); }
details { margin-top: 10px; } .card > details { border-top: 1px solid var(--faint); padding-top: 8px; font-size: 14px; }
summary { cursor: pointer; color: var(--soft); } summary:hover { color: var(--ink); }
summary:focus-visible { outline: 2px solid var(--ztunnel); outline-offset: 2px; border-radius: 3px; }
pre {
  background: var(--faint); border-radius: 6px; padding: 10px 12px; margin: 8px 0; overflow-x: auto;
  font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere;
}
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.legend { display: flex; justify-content: space-between; color: var(--soft); font-size: 12px; font-weight: 400; }
@media (max-width: 720px) {
  main { padding: 20px 12px 48px; }
  .card { padding: 14px; }
  th, td { padding: 5px 5px; }
  .card table { font-size: 13px; }
  .spread { display: none; }
  svg.plot text { font-size: 14px; } svg.plot .axis text { font-size: 13px; }
  .overview thead { display: none; }
  .overview, .overview tbody, .overview tr, .overview th, .overview td { display: block; width: auto; }
  .overview tr { padding: 10px 0; border-bottom: 1px solid var(--line); }
  .overview tr:last-child { border-bottom: 0; }
  .overview th, .overview td, .overview td.wide { border: 0; padding: 2px 0; text-align: right; width: auto; }
  .overview th:first-child { text-align: left; font-weight: 600; }
  .overview td::before { content: attr(data-label); float: left; color: var(--soft); }
  .overview td.wide::before { content: none; }
  .overview td:empty { display: none; }
}
@media print { body { background: #fff; } .card { break-inside: avoid; } }
`
