"use strict";
(() => {
  const run = JSON.parse(document.getElementById("run").textContent);
  const canvas = document.getElementById("timeline"), tip = document.getElementById("tip");
  const pen = canvas.getContext("2d");
  const many = run.accelerators.length > 16;
  const LANE = many ? 8 : 13, GAP = many ? 4 : 8, TOP = 24;
  const LEFT = 12 + Math.min(150, 8 * Math.max(4, ...run.accelerators.map((id) => id.length)));
  const rows = run.accelerators.length, whole = run.latency_us || 1;
  let from = 0, to = whole, width = 0;

  // A kind is drawn in the lane of what it occupies: arithmetic above, links below.
  const lanes = run.kinds.map((kind) => (kind === "compute" || kind === "local" ? 0 : 1));
  const perLane = Array.from({ length: 2 * rows }, () => []);
  for (const task of run.tasks) for (const row of task[5]) perLane[2 * row + lanes[task[0]]].push(task);
  for (const lane of perLane) lane.sort((a, b) => a[3] - b[3]);

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  const at = (time) => LEFT + ((time - from) / (to - from)) * (width - LEFT - 4);
  const when = (x) => from + ((x - LEFT) / (width - LEFT - 4)) * (to - from);
  const top = (row, lane) => TOP + row * (2 * LANE + GAP) + lane * LANE;
  const digits = (value) => String(+value.toPrecision(4));
  const text = (us) => (us >= 1e6 ? digits(us / 1e6) + " s" : us >= 1e3 ? digits(us / 1e3) + " ms" : digits(us) + " us");

  function draw() {
    const scale = window.devicePixelRatio || 1, height = TOP + rows * (2 * LANE + GAP);
    width = canvas.parentElement.clientWidth;
    canvas.style.height = height + "px";
    canvas.width = width * scale;
    canvas.height = height * scale;
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.font = `${many ? 10 : 12}px system-ui, sans-serif`;
    axis(height);
    const fills = run.kinds.map((kind) => colour(kind === "local" ? "other" : kind === "input" || kind === "output" ? "edge" : kind));
    const critical = colour("critical"), label = colour("text");
    for (let row = 0; row < rows; row++) {
      pen.fillStyle = label;
      pen.textAlign = "left";
      pen.fillText(run.accelerators[row].slice(0, 20), 0, top(row, 1) + (many ? 3 : 4), LEFT - 8);
      for (let lane = 0; lane < 2; lane++) {
        const y = top(row, lane);
        let reached = -1;
        for (const task of perLane[2 * row + lane]) {
          if (task[3] + task[4] < from) continue;
          if (task[3] > to) break;
          const x = Math.max(LEFT, at(task[3])), end = Math.min(width - 4, at(task[3] + task[4]));
          if (end < reached + 0.3) continue; // Hidden behind what is drawn already.
          const broad = Math.max(end - x, 0.6);
          pen.fillStyle = fills[task[0]];
          pen.fillRect(x, y, broad > 3 ? broad - 0.5 : broad, LANE - 2);
          if (task[6]) {
            pen.fillStyle = critical;
            pen.fillRect(x, y + LANE - (many ? 3 : 4), broad, many ? 1 : 2);
          }
          reached = end;
        }
      }
    }
  }

  function axis(height) {
    const span = to - from, rough = span / Math.max(2, (width - LEFT) / 110), power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    pen.strokeStyle = colour("line");
    pen.fillStyle = colour("quiet");
    pen.textAlign = "center";
    for (let n = Math.ceil(from / step); n * step <= to; n++) {
      const x = at(n * step);
      pen.beginPath();
      pen.moveTo(x, 16);
      pen.lineTo(x, height);
      pen.stroke();
      pen.fillText(n ? text(n * step) : "0", Math.max(x, LEFT), 11);
    }
  }

  function show(start, end) {
    const span = Math.min(whole, Math.max(end - start, whole * 1e-6));
    from = Math.min(Math.max(0, start), whole - span);
    to = from + span;
    draw();
  }
  function zoom(factor, middle) {
    show(middle - (middle - from) * factor, middle + (to - middle) * factor);
  }
  function find(event) {
    const x = event.offsetX, y = event.offsetY;
    const row = Math.floor((y - TOP) / (2 * LANE + GAP)), lane = Math.floor((y - top(row, 0)) / LANE);
    if (row < 0 || row >= rows || lane < 0 || lane > 1 || x < LEFT) return null;
    const time = when(x), slack = when(x + 2) - time;
    return perLane[2 * row + lane].findLast((task) => task[3] <= time + slack && task[3] + task[4] >= time - slack) || null;
  }

  let held = null;
  canvas.addEventListener("pointerdown", (event) => {
    held = { x: event.offsetX, from, to };
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", () => (held = null));
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));
  canvas.addEventListener("pointermove", (event) => {
    if (held) {
      const moved = ((event.offsetX - held.x) / (width - LEFT)) * (held.to - held.from);
      show(held.from - moved, held.to - moved);
    }
    const task = held ? null : find(event);
    tip.hidden = !task;
    if (!task) return;
    const group = task[5].length > 1 ? "\n" + task[5].map((row) => run.accelerators[row]).join(", ") : "";
    tip.textContent = `${run.operators[task[2]]} ${run.labels[task[1]]}\n${run.kinds[task[0]]}, ${text(task[4])}, from ${text(task[3])}${task[6] ? ", critical" : ""}${group}`;
    tip.style.left = Math.min(event.offsetX + 14, width - 260) + "px";
    tip.style.top = event.offsetY + 16 + "px";
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, when(event.offsetX));
  }, { passive: false });
  document.getElementById("in").onclick = () => zoom(0.5, (from + to) / 2);
  document.getElementById("out").onclick = () => zoom(2, (from + to) / 2);
  document.getElementById("all").onclick = () => show(0, whole);
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  for (const id of ["tools", "search"]) document.getElementById(id).hidden = false;
  draw();

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    heads.forEach((head, column) => {
      if (head.classList.contains("plain")) return;
      head.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0], sign = down ? -1 : 1;
        const key = (row) => (head.classList.contains("n") || row.cells[column].dataset.v ? Number(value(row, column)) : value(row, column));
        const order = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
        body.append(...[...body.rows].sort((a, b) => sign * order(key(a), key(b))));
      });
    });
  }

  const filter = document.getElementById("filter"), shown = document.getElementById("shown");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of document.getElementById("layers").tBodies[0].rows) {
      const own = [1, 2, 4].map((column) => row.cells[column].textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => own.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = words.length ? `${count} layers` : "";
  });
})();
