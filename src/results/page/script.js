// Lets the reader pick out one intervention in the scatter; the page is whole without it.
for (const select of document.querySelectorAll("select[data-for]")) {
  const drawing = document.getElementById(select.dataset.for).querySelector("svg");
  select.parentElement.hidden = false;
  select.addEventListener("change", () => {
    for (const path of drawing.querySelectorAll(".chosen")) path.classList.remove("chosen");
    drawing.classList.toggle("dim", select.value !== "");
    if (select.value === "") return;
    const path = drawing.querySelector('[data-i="' + select.value + '"]');
    if (path) { path.classList.add("chosen"); path.parentElement.appendChild(path); }
  });
}
