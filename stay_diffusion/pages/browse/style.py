"""How the page of looked-at pictures looks, and the few lines that filter it."""

from .. import markup

STYLE = (
    markup.STYLE
    + """
.numbers { color: var(--ink); font-weight: 600; margin-top: .2rem; }
.classes {
  display: flex; flex-wrap: wrap; gap: .4rem; margin: 1rem 0 .6rem; max-height: 11rem; overflow-y: auto;
}
button {
  font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .15rem .6rem .15rem .5rem; border-left: 4px solid var(--c); cursor: pointer; max-width: 100%;
  overflow-wrap: anywhere; text-align: left;
}
button:hover, button[aria-pressed="true"] { border-color: var(--c); }
button[aria-pressed="true"] { box-shadow: 0 0 0 1px var(--c); }
button span, li span { color: var(--soft); }
details p, details ul { margin: .3rem 0 0 1rem; }
.problems { color: var(--warn); }
.controls {
  position: sticky; top: 0; z-index: 9; display: flex; flex-wrap: wrap; align-items: center; gap: .5rem 1rem;
  padding: .6rem clamp(1rem, 3vw, 2.5rem); margin: .8rem 0 1.2rem; background: var(--paper);
  border-block: 1px solid var(--line);
}
.controls :is(input[type="search"], select) {
  font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .25rem .5rem; max-width: 14rem;
}
.controls label { display: inline-flex; align-items: center; gap: .35rem; }
.controls input { accent-color: var(--ink); }
output { margin-left: auto; color: var(--soft); }
main {
  display: grid; gap: 1.2rem; padding-bottom: 3rem; align-items: start;
  grid-template-columns: repeat(auto-fill, min(100%, calc(var(--n) * (var(--side) + .8rem) + 1.4rem)));
}
article {
  min-width: 0; padding: .8rem 1rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
}
article header { margin-bottom: .6rem; }
h2 { font-size: 1rem; font-weight: 600; margin: 0; overflow-wrap: anywhere; }
article header p { margin: 0; color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; }
.enlarged :is(.seen, .map) img { image-rendering: pixelated; }
.original .box { outline-width: 1.5px; box-shadow: none; }
.original .box.lost { outline-style: dashed; }
.original .box i { display: none; }
.window { position: absolute; outline: 1.5px dashed #fff; box-shadow: 0 0 0 1.5px rgb(0 0 0 / .6); z-index: 1; }
.window i { position: absolute; inset: 0 auto auto 0; font: 600 11px/1.35 system-ui, sans-serif; padding: 0 .35em;
  background: #fff; color: #000; }
figure ul { font-size: .85rem; line-height: 1.45; max-height: 16em; overflow-y: auto; }
figure li { padding-left: .9rem; position: relative; overflow-wrap: anywhere; }
figure li::before {
  content: ""; position: absolute; left: 0; top: .38em; width: .55rem; height: .55rem; border-radius: 2px;
  background: var(--c);
}
figure li.lost bdi { text-decoration: line-through; }
figure li em { font-style: normal; color: var(--warn); }
#none { grid-column: 1 / -1; color: var(--soft); text-align: center; padding: 3rem 0; }
:root:has(#boxes:not(:checked)) :is(.box, .window), :root:has(#names:not(:checked)) .box i { display: none; }
"""
)

SCRIPT = """
const form = document.querySelector("form"), fields = form.elements;
const cards = [...document.querySelectorAll("article")], buttons = [...document.querySelectorAll(".classes button")];
const has = (words, word) => !word || words.split(" ").includes(word);
function filter() {
  const text = fields.text.value.trim().toLowerCase();
  const label = fields.label.value, product = fields.product?.value, state = fields.state?.value;
  let shown = 0;
  for (const card of cards) {
    const data = card.dataset;
    card.hidden = !(data.name.includes(text) && has(data.labels, label) && has(data.product, product)
      && has(data.state, state));
    shown += !card.hidden;
  }
  for (const button of buttons) button.setAttribute("aria-pressed", button.value === label);
  fields.count.value = shown === cards.length ? `${shown} pictures` : `${shown} of ${cards.length} pictures`;
  document.getElementById("none").hidden = shown > 0;
  document.documentElement.style.setProperty("--side", fields.side.value + "px");
}
form.addEventListener("input", filter);
form.addEventListener("submit", event => event.preventDefault());
for (const button of buttons) button.addEventListener("click", () => {
  fields.label.value = fields.label.value === button.value ? "" : button.value;
  filter();
});
filter();
"""
