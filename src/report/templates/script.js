"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const make = (name, className, parent) => {
    const element = document.createElementNS(SVG, name);
    element.setAttribute("class", className);
    element.style.pointerEvents = "none";
    parent.append(element);
    return element;
  };

  // Charts: the nearest epoch's values, by pointer, touch or arrow keys.
  for (const figure of document.querySelectorAll("[data-chart]")) {
    const svg = figure.querySelector("svg");
    const readout = figure.querySelector("[data-readout]");
    const strips = [...svg.querySelectorAll(".strips rect")];
    if (!readout || strips.length === 0) continue;
    const atRest = readout.textContent;
    const cursor = make("line", "cursor", svg);
    const dots = [];
    let current = -1;
    const clear = () => {
      current = -1;
      readout.textContent = atRest;
      cursor.style.display = "none";
      dots.forEach((dot) => { dot.style.display = "none"; });
    };
    const show = (index) => {
      current = Math.max(0, Math.min(strips.length - 1, index));
      const strip = strips[current];
      readout.textContent = strip.dataset.value;
      let x = null;
      strip.dataset.dots.split(";").forEach((pair, series) => {
        dots[series] ??= make("circle", "dot s" + series, svg);
        dots[series].style.display = pair ? "" : "none";
        if (!pair) return;
        const [px, py] = pair.split(" ");
        x = px;
        dots[series].setAttribute("cx", px);
        dots[series].setAttribute("cy", py);
        dots[series].setAttribute("r", "4.5");
      });
      if (x === null) return;
      cursor.style.display = "";
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.setAttribute("y1", strip.getAttribute("y"));
      cursor.setAttribute("y2", Number(strip.getAttribute("y")) + Number(strip.getAttribute("height")));
    };
    // The strips' own titles are for pages without scripts.
    strips.forEach((strip, index) => {
      strip.querySelector("title")?.remove();
      strip.addEventListener("pointerenter", () => show(index));
      strip.addEventListener("pointerdown", () => show(index));
    });
    svg.addEventListener("pointerleave", clear);
    svg.addEventListener("focus", () => { readout.setAttribute("aria-live", "polite"); });
    svg.addEventListener("blur", () => { readout.removeAttribute("aria-live"); clear(); });
    svg.addEventListener("keydown", (event) => {
      const from = current < 0 ? strips.length - 1 : current;
      const target = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: strips.length - 1 }[event.key];
      if (target === undefined) return;
      event.preventDefault();
      show(target);
    });
    clear();
  }

  // Tables: sorted by the column whose heading is pressed; first press puts the smallest on top.
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headings = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const key = (row, column) => {
      const cell = row.cells[column];
      return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
    };
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      heading.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const ascending = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((other) => other.setAttribute("aria-sort", "none"));
        heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [key(a, column), key(b, column)];
          const order = typeof x === "number" ? x - y : x.localeCompare(y, "en");
          return ascending ? order : -order;
        });
        body.append(...rows);
      });
    });
  }

  // Map: a class of the legend stands out while it is pressed.
  for (const figure of document.querySelectorAll("[data-map]")) {
    const map = figure.querySelector(".map");
    const points = [...map.querySelectorAll(".point")];
    const chosen = new Set();
    for (const entry of figure.querySelectorAll("[data-legend]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.append(...entry.childNodes);
      entry.append(button);
      button.addEventListener("click", () => {
        const name = entry.dataset.legend;
        if (!chosen.delete(name)) chosen.add(name);
        button.setAttribute("aria-pressed", String(chosen.has(name)));
        map.classList.toggle("focus", chosen.size > 0);
        points.forEach((point) => point.classList.toggle("on", chosen.has(point.dataset.class)));
      });
    }
  }

  // Paper has no details to open.
  const closed = new Set();
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details:not([open])").forEach((details) => { closed.add(details); details.open = true; });
  });
  addEventListener("afterprint", () => {
    closed.forEach((details) => { details.open = false; });
    closed.clear();
  });
})();
