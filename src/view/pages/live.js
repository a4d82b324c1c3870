"use strict";
(() => {
  const base = document.querySelector("meta[name=live]")?.content;
  if (!base) return;
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const make = (name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  };
  const draw = (name, attributes, parent) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
    return element;
  };
  const count = (value) => value.toLocaleString("en");
  const short = (value) => Number(value.toPrecision(4)).toString();
  const time = (seconds) => {
    if (seconds === null || seconds === undefined) return "";
    const whole = Math.round(seconds);
    if (seconds < 10) return `${seconds.toFixed(1)} s`;
    if (whole < 60) return `${whole} s`;
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
    return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole / 60) % 60).padStart(2, "0")} min`;
  };

  const setText = (element, text) => {
    // A region that is read aloud must not be written without need.
    if (element.textContent !== text) element.textContent = text;
  };

  function stageRow(stage) {
    const row = make("tr");
    const name = make("th");
    name.scope = "row";
    name.append(make("bdi", stage.stage), " ", make("span", stage.uses, "quiet"));
    row.append(name, make("td", stage.state, `state-${stage.state}`));
    const progress = make("td");
    if (stage.state === "running" && stage.total > 0) {
      const bar = make("progress");
      bar.max = stage.total;
      bar.value = stage.done;
      bar.setAttribute("aria-label", `Progress of ${stage.stage}`);
      const rate = stage.rate ? `, ${short(stage.rate)} ${stage.unit}/s, ${time((stage.total - stage.done) / stage.rate)} left` : "";
      progress.append(bar, ` ${count(stage.done)} of ${count(stage.total)} ${stage.unit}${rate}`);
    }
    row.append(progress, make("td", stage.seconds === null ? "" : (stage.state === "restored" ? `saved ${time(stage.seconds)}` : time(stage.seconds)), "num"));
    const figures = Object.entries(stage.metrics).slice(0, 4).map(([key, value]) => `${key} ${short(value)}`).join(" · ");
    row.append(make("td", stage.state === "running" || stage.state === "failed" ? stage.message : figures));
    return row;
  }

  function curveFigure(stage, name) {
    const figure = make("figure");
    const caption = make("figcaption");
    caption.append(make("strong", name), make("span", "", "readout"), make("span", stage, "note"));
    const [width, height, left, top, bottom] = [420, 200, 54, 12, 26];
    const svg = draw("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${name} of ${stage}` }, figure);
    figure.prepend(caption);
    const line = draw("path", { class: "line s0", d: "" }, svg);
    const marks = [0, 1].map((idx) => draw("text", { class: "tick end", x: left - 7, y: idx ? top + 4 : height - bottom }, svg));
    const ends = [0, 1].map((idx) => draw("text", { class: idx ? "tick end" : "tick", x: idx ? width : left, y: height - 6 }, svg));
    const cursor = draw("circle", { class: "dot s0", r: 4.5, visibility: "hidden" }, svg);
    let points = [];
    let place = () => [0, 0];
    const rest = () => {
      const last = points[points.length - 1];
      cursor.setAttribute("visibility", "hidden");
      setText(caption.querySelector(".readout"), last ? `${short(last[1])} at ${count(last[0])}` : "");
    };
    svg.addEventListener("pointermove", (event) => {
      if (points.length === 0) return;
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * width;
      const near = points.reduce((best, point) => (Math.abs(place(point)[0] - x) < Math.abs(place(best)[0] - x) ? point : best));
      const [cx, cy] = place(near);
      cursor.setAttribute("cx", cx);
      cursor.setAttribute("cy", cy);
      cursor.setAttribute("visibility", "visible");
      setText(caption.querySelector(".readout"), `${short(near[1])} at ${count(near[0])}`);
    });
    svg.addEventListener("pointerleave", rest);
    figure.update = (next) => {
      points = next;
      const values = points.map((point) => point[1]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const [from, to] = [points[0][0], points[points.length - 1][0]];
      const share = (value, a, b) => (b > a ? (value - a) / (b - a) : 0.5);
      place = ([step, value]) => [
        left + share(step, from, to) * (width - left - 6),
        height - bottom - share(value, low, high) * (height - top - bottom - 6) - 3,
      ];
      // A single point is a line without length, which round ends make visible.
      const dot = points.length === 1 ? "h0" : "";
      line.setAttribute("d", points.map((point, idx) => `${idx ? "L" : "M"}${place(point).map((at) => at.toFixed(1)).join(" ")}`).join("") + dot);
      [low, high].forEach((value, idx) => { marks[idx].textContent = short(value); });
      [from, to].forEach((value, idx) => { ends[idx].textContent = count(value); });
      if (cursor.getAttribute("visibility") === "hidden") rest();
    };
    return figure;
  }

  const figures = new Map();
  let lastUpdate = null;
  function show(run) {
    const going = run.stages.filter((stage) => stage.state === "running").map((stage) => stage.stage);
    const done = run.stages.filter((stage) => ["ran", "restored"].includes(stage.state)).length;
    const over = { done: "Done", failed: "Failed", cancelled: "Stopped" }[run.outcome] ?? (run.alive ? null : "Killed");
    const words = over ?? (going.length ? `Running ${going.join(", ")}` : "Running");
    setText(byId("state"), `${words}: ${done} of ${run.stages.length} stages`);
    document.title = `${words} · ${run.pipeline}`;
    const saved = run.saved_seconds >= 0.05 ? `; the cache saved ${time(run.saved_seconds)}` : "";
    setText(byId("news"), `Began ${run.began}, ${run.outcome ? `took ${time(run.seconds)}` : `last news ${run.updated}`}${saved}.`);
    const link = byId("report");
    link.hidden = !run.report_url;
    if (run.report_url) link.firstElementChild.href = run.report_url;
    if (run.updated === lastUpdate && !run.outcome) return;
    byId("warnings").replaceChildren(...run.warnings.map((warning) => {
      const note = make("p", undefined, "warning");
      note.append(make("strong", "Warning. "), warning);
      return note;
    }));
    byId("stages").tBodies[0].replaceChildren(...run.stages.map(stageRow));
    for (const stage of run.stages) {
      for (const [name, curve] of Object.entries(stage.curves)) {
        if (curve.points.length === 0) continue;
        const key = `${stage.stage} ${name}`;
        if (!figures.has(key)) {
          figures.set(key, curveFigure(stage.stage, name));
          byId("curves").append(figures.get(key));
        }
        figures.get(key).update(curve.points);
      }
    }
    if (run.updated !== lastUpdate) byId("graph").src = `${base}.svg?${encodeURIComponent(run.updated)}`;
    lastUpdate = run.updated;
  }

  async function follow() {
    if (!document.hidden) {
      try {
        const answer = await fetch(`${base}.json`);
        if (answer.ok) show(await answer.json());
        else setText(byId("state"), "This run is over, and another has begun");
      } catch {
        setText(byId("state"), "The server does not answer any more");
      }
    }
    setTimeout(follow, 1000);
  }
  follow();
})();
