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

  // Maps: one at a time, coloured by class or by error; the pointer or the arrow keys bring an image.
  for (const figure of document.querySelectorAll("[data-map]")) {
    const maps = [...figure.querySelectorAll(".map")];
    const stage = figure.querySelector(".stage");
    const controls = figure.querySelector("[data-controls]");
    const sheet = figure.querySelector("[data-sprite]");
    const [tile, columns] = sheet ? sheet.dataset.sprite.split(" ").map(Number) : [0, 0];
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    const picture = sheet ? document.createElement("img") : null;
    if (picture) {
      picture.src = sheet.src;
      picture.alt = "";
      picture.width = picture.height = tile;
      picture.style.setProperty("--zoom", String(96 / tile));
      tip.append(picture);
    }
    const words = document.createElement("bdi");
    tip.append(words);
    stage.append(tip);
    // The points' own titles are for pages without scripts.
    const titles = new Map();
    for (const point of figure.querySelectorAll(".stage .point")) {
      const title = point.querySelector("title");
      if (title) {
        titles.set(point.dataset.point, title.textContent);
        title.remove();
      }
    }
    let near = null;
    const leave = () => {
      near?.classList.remove("near");
      near = null;
      tip.hidden = true;
    };
    const show = (point) => {
      if (point === near) return;
      leave();
      near = point;
      point.classList.add("near");
      const index = Number(point.dataset.point);
      if (picture) picture.style.objectPosition = `${-(index % columns) * tile}px ${-Math.floor(index / columns) * tile}px`;
      words.textContent = titles.get(point.dataset.point) ?? "";
      tip.hidden = false;
      const [box, at] = [stage.getBoundingClientRect(), point.getBoundingClientRect()];
      const right = at.right - box.left + 8;
      tip.style.left = `${Math.max(0, right + tip.offsetWidth <= box.width ? right : at.left - box.left - 8 - tip.offsetWidth)}px`;
      tip.style.top = `${Math.max(0, Math.min(at.top - box.top - 16, box.height - tip.offsetHeight))}px`;
    };
    for (const map of maps) {
      const points = [...map.querySelectorAll(".point")];
      if (points.length === 0) continue;
      map.setAttribute("tabindex", "0");
      const over = (event) => {
        const point = event.target.closest(".point");
        if (point) show(point);
        else leave();
      };
      map.addEventListener("pointerover", over);
      map.addEventListener("pointerdown", over);
      map.addEventListener("pointerleave", leave);
      map.addEventListener("focus", () => tip.setAttribute("aria-live", "polite"));
      map.addEventListener("blur", () => { tip.removeAttribute("aria-live"); leave(); });
      map.addEventListener("keydown", (event) => {
        const from = points.indexOf(near);
        const last = points.length - 1;
        const target = { ArrowLeft: from < 0 ? last : from - 1, ArrowRight: from + 1, Home: 0, End: last, Escape: -1 }[event.key];
        if (target === undefined) return;
        event.preventDefault();
        if (event.key === "Escape") leave();
        else show(points[(target + points.length) % points.length]);
      });
    }
    const choice = (name, options) => {
      const group = document.createElement("span");
      group.setAttribute("role", "group");
      group.setAttribute("aria-label", name);
      const label = document.createElement("b");
      label.textContent = name;
      group.append(label);
      const buttons = options.map(([text, action]) => {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text;
        button.addEventListener("click", () => {
          buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
          leave();
          action();
        });
        group.append(button);
        return button;
      });
      buttons[0].click();
      controls.append(group);
    };
    if (maps.length > 1) {
      figure.querySelectorAll(".which").forEach((which) => { which.hidden = true; });
      const pick = (name) => maps.forEach((map) => { map.style.display = map.dataset.projection === name ? "" : "none"; });
      choice("Map", [["t-SNE", () => pick("tsne")], ["PCA", () => pick("pca")]]);
    }
    if (figure.querySelector(".point.miss")) {
      const by = (error) => maps.forEach((map) => map.classList.toggle("by-error", error));
      choice("Colour", [["by class", () => by(false)], ["by error", () => by(true)]]);
    }
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
        for (const map of maps) {
          map.classList.toggle("focus", chosen.size > 0);
          map.querySelectorAll(".point").forEach((point) => point.classList.toggle("on", chosen.has(point.dataset.class)));
        }
      });
    }
  }

  // Digests and parameters to take along.
  for (const place of document.querySelectorAll("[data-copy]")) {
    const source = place.querySelector("code, pre");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    const select = () => {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
    };
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(source.textContent);
        button.textContent = "Copied";
      } catch {
        // Without the right to write to the clipboard the text is at least selected.
        select();
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    place.append(button);
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
