"""How a report looks: on a screen, light or dark, and on paper."""

from .. import markup

STYLE = (
    markup.STYLE
    + """
:root { --ours: #2f6bd8; --theirs: #1c1e21; --grid: #e6e7ea; }
@media (prefers-color-scheme: dark) { :root { --ours: #6d9df5; --theirs: #e8e9eb; --grid: #2b2e33; } }
html { scroll-behavior: auto; }
.top, main { max-width: 1440px; margin: 0 auto; }
h1 { margin-top: 2rem; }
.lead { margin: 0 0 1.2rem; color: var(--soft); }
code, pre { font: 12.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
code { overflow-wrap: anywhere; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(116px, 1fr)); gap: .7rem; }
.tiles li {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem .8rem;
  color: var(--soft); font-size: .82rem; line-height: 1.35;
}
.tiles strong {
  display: block; color: var(--ink); font-size: 1.65rem; font-weight: 650; line-height: 1.25; letter-spacing: -.02em;
}
.missing { margin: 1rem 0 0; color: var(--warn); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 1.3rem 0 0; padding: .6rem 0;
  border-block: 1px solid var(--line); }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { margin: 2.2rem 0; }
h2 { font-size: 1.2rem; letter-spacing: -.01em; margin: 0 0 .5rem; }
h3 { font-size: 1.02rem; margin: 0; overflow-wrap: anywhere; }
h4 { font-size: .78rem; font-weight: 600; margin: 0 0 .45rem; color: var(--soft); }
.told { margin: 0 0 .9rem; color: var(--soft); max-width: 60rem; }
.told.after { margin-top: 1.2rem; }
.told label { margin-left: .8rem; white-space: nowrap; color: var(--ink); }
.bad { font-style: normal; color: var(--warn); }
.sheet {
  background: var(--card); border: 1px solid var(--line); border-left: 5px solid var(--c); border-radius: 10px;
  padding: .8rem 1rem 1rem; margin-bottom: 1rem; break-inside: avoid;
}
.sheet header { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0 .9rem; margin-bottom: .7rem; }
.sheet header p { margin: 0; color: var(--soft); }
.groups { display: flex; flex-wrap: wrap; gap: 1rem 1.6rem; }
.group { flex: 1 1 320px; min-width: 0; }
.crops { display: grid; grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: .7rem; align-items: start; }
.crop, .whole, .thumbnails figure, .pair figure { width: auto; }
.crop { scroll-margin: 6rem; }
.crop a, .pair a { display: block; }
figcaption { overflow-wrap: anywhere; line-height: 1.35; }
figcaption strong { color: var(--ink); font-weight: 650; }
.frame { outline: 1px solid var(--line); outline-offset: -1px; }
.sharp img { image-rendering: pixelated; }
.crop .box, .pair .box { outline-width: 1.5px; box-shadow: 0 0 0 2.5px rgb(0 0 0 / .3); }
:root:has(#boxes:not(:checked)) .box { display: none; }
.box.there { outline-style: dashed; box-shadow: none; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; background: var(--card); border: 1px solid var(--line); }
th, td { padding: .38rem .8rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 500; font-size: .8rem; }
th:first-child { text-align: left; }
tbody th {
  font-weight: 600; border-left: 5px solid var(--c); min-width: 9rem; max-width: 22rem; white-space: normal;
  overflow-wrap: anywhere;
}
tbody th a { text-decoration: none; }
td.share { width: 26%; min-width: 11rem; }
td.share svg { width: calc(100% - 4.2rem); height: 12px; vertical-align: -1px; margin-right: .6rem; }
td.share span { display: inline-block; width: 3.4rem; }
svg .ours, .key.ours::before { fill: var(--ours); background: var(--ours); }
svg .mark { fill: var(--theirs); }
.charts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 270px), 1fr)); gap: 1rem; max-width: 1440px;
}
.chart {
  width: auto; max-width: 400px; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: .5rem .8rem; break-inside: avoid;
}
.chart figcaption { color: var(--ink); font-weight: 600; }
svg { display: block; width: 100%; height: auto; }
.share svg { display: inline-block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--grid); }
svg .theirs { fill: none; stroke: var(--theirs); stroke-width: 1.6; }
.keys { display: flex; gap: 1.4rem; margin: 0 0 .7rem; color: var(--soft); }
.key::before {
  content: ""; display: inline-block; width: .8rem; height: .8rem; border-radius: 2px; margin-right: .45rem;
  vertical-align: -1px;
}
.key.theirs::before {
  border: 0; border-top: 2px solid var(--theirs); border-radius: 0; height: 0; vertical-align: 4px;
}
.maps { display: flex; flex-wrap: wrap; gap: 1rem 1.8rem; margin-top: 1.2rem; }
.maps figure { width: auto; break-inside: avoid; }
.maps figcaption { color: var(--ink); font-weight: 600; max-width: 15rem; }
.both { display: flex; gap: .5rem; }
.both span { color: var(--soft); font-size: .75rem; }
.heat { width: 112px; height: 112px; background: var(--card); border: 1px solid var(--line); border-radius: 3px; }
.heat .cell { fill: var(--ours); }
.rows {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 0 2rem; margin: 0;
}
.rows div {
  display: flex; gap: 1rem; justify-content: space-between; border-bottom: 1px solid var(--line); padding: .3rem 0;
}
.rows .long { grid-column: 1 / -1; justify-content: flex-start; }
.long dt { flex: 0 0 13rem; }
.long dd { text-align: left; }
.rows dt { color: var(--soft); white-space: nowrap; }
.rows dd { margin: 0; text-align: right; overflow-wrap: anywhere; min-width: 0; }
.commands { margin: 0; }
.commands dt { color: var(--soft); }
.commands dd { margin: .25rem 0 .9rem; }
pre {
  margin: 0; padding: .7rem .9rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 1rem; }
.pair {
  display: grid; grid-template-columns: 1fr 1fr; gap: .6rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: .7rem; break-inside: avoid; align-items: start;
}
.pair.copied { border-color: var(--warn); }
.pair p { grid-column: 1 / -1; margin: 0; color: var(--soft); }
.pair strong { color: var(--ink); }
.gone { display: grid; place-items: center; text-align: center; color: var(--soft); font-size: .8rem; }
.thumbnails {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: .8rem; align-items: start;
}
.stems { columns: 12rem; margin-top: .4rem; }
.wholes { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 1rem; align-items: start; }
.whole { break-inside: avoid; }
.whole .close { display: none; }
@media screen {
  .whole:target {
    position: fixed; inset: 0; z-index: 9; display: flex; flex-direction: column; align-items: center;
    justify-content: center; gap: .6rem; padding: 1rem; background: var(--paper);
  }
  .whole:target .frame { width: min(94vw, calc(84vh * var(--ratio)), 1400px); }
  .whole:target .close { display: block; align-self: flex-end; text-decoration: none; padding: .2rem .6rem; }
  .whole:target figcaption { font-size: .95rem; }
}
.whole:not(:target) .box i { display: none; }
@media print {
  :root { color-scheme: light; --paper: #fff; --card: #fff; --ink: #000; --soft: #555; --line: #ccc; --warn: #a4450a;
    --ours: #2f6bd8; --theirs: #000; --grid: #ddd; }
  * { print-color-adjust: exact; }
  nav, .told.after { margin-top: 1.2rem; }
.told label { display: none; }
  @page { margin: 12mm; }
  html, body { font-size: 10.5px; }
  .told, h4 { break-after: avoid; }
  .top, main { max-width: none; padding: 0; }
  .tiles { grid-template-columns: repeat(auto-fit, minmax(70px, 1fr)); }
  .tiles strong { font-size: 1.4rem; }
  .groups { flex-wrap: nowrap; gap: .8rem; }
  .group { flex-basis: 0; }
  .group:not(.examples) .crops { grid-template-columns: repeat(3, 1fr); gap: .4rem; }
  .charts { grid-template-columns: repeat(4, 1fr); }
  .wholes { grid-template-columns: repeat(4, 1fr); }
  .pairs { grid-template-columns: repeat(3, 1fr); }
  .box.there { outline-style: dashed; box-shadow: none; }
.wide { overflow: visible; }
  th, td { padding: .3rem .5rem; white-space: normal; }
  tbody th { min-width: 7rem; }
  td.share { min-width: 8rem; }
  section { margin: 1.2rem 0; }
  h2 { break-after: avoid; }
  .crop, .whole, .pair, .thumbnails figure, tr { break-inside: avoid; }
}
"""
)
