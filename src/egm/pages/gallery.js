"use strict";
const form = document.getElementById("filters");
const items = [...document.querySelectorAll("#items > article")];
const boxes = [...form.querySelectorAll("[name=outcome]")];
const words = new Map();

function textOf(item) {
  if (!words.has(item)) words.set(item, item.textContent.toLowerCase());
  return words.get(item);
}

function apply() {
  const outcomes = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
  const asked = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const item of items) {
    const passes = outcomes.has(item.dataset.outcome)
      && ["phrase", "split", "run"].every((name) => {
        const choice = form.elements[name];
        return !choice || choice.value === "" || choice.value === item.dataset[name];
      })
      && asked.every((word) => textOf(item).includes(word));
    item.hidden = !passes;
    count += passes;
  }
  document.getElementById("count").textContent = `${count} shown`;
  document.getElementById("empty").hidden = count > 0;
}

function check(wanted) {
  for (const box of boxes) box.checked = wanted(box.value);
  apply();
}

document.getElementById("items").addEventListener("click", (event) => {
  if (event.target.tagName === "IMG") event.target.classList.toggle("large");
});
form.addEventListener("input", apply);
form.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("misses").addEventListener("click", () => check((outcome) => outcome !== form.dataset.good));
document.getElementById("all").addEventListener("click", () => check(() => true));
apply();
