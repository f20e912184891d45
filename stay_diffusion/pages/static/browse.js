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
