"use strict";
// A click on the head of a column sorts its table by that column; a second click turns the order round.
for (const head of document.querySelectorAll("th")) {
  const sort = () => {
    const table = head.closest("table");
    const column = [...head.parentNode.children].indexOf(head);
    const descending = head.getAttribute("aria-sort") !== "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = (row) => row.children[column].dataset.value;
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      const order = isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
      return descending ? -order : order;
    });
    table.tBodies[0].append(...rows);
  };
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => event.key === "Enter" && sort());
}
