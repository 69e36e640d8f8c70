// A layer of three channels with two outputs: drag a point or a weight, and the arithmetic follows.
const SVG = "http://www.w3.org/2000/svg";
const LIMIT = 3, WIDTH = 250, HEIGHT = 92, STEP = 0.1;
const round = (value) => Math.round(value / STEP) * STEP;
const show = (value, digits = 2) => (Math.abs(value) < 0.5 / 10 ** digits ? 0 : value).toFixed(digits);
const signed = (value) => (value < 0 ? `(${show(value)})` : show(value));

function numbers(x, w) {
  const n = x.length;
  const mean = x.reduce((a, b) => a + b, 0) / n;
  const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1);
  const norm = Math.hypot(...w);
  return { mean, variance, norm, score: variance * norm ** 2, bias: w.map((each) => each * mean) };
}

function element(name, attributes, parent) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

// A handle that a pointer drags up and down, and the arrow keys move.
function handle(svg, place, label, value, change) {
  const y = (v) => HEIGHT / 2 - (v / LIMIT) * (HEIGHT / 2 - 9);
  const stem = element("line", { x1: place, x2: place, y1: y(0), y2: y(value), class: "stem" }, svg);
  const dot = element("circle", {
    cx: place, cy: y(value), r: 7, tabindex: 0, role: "slider", "aria-label": label, "aria-valuemin": -LIMIT,
    "aria-valuemax": LIMIT, "aria-valuenow": show(value), "aria-orientation": "vertical",
  }, svg);
  const put = (next) => {
    value = Math.max(-LIMIT, Math.min(LIMIT, round(next)));
    dot.setAttribute("cy", y(value));
    stem.setAttribute("y2", y(value));
    dot.setAttribute("aria-valuenow", show(value));
    change(value);
  };
  dot.onpointerdown = (event) => { dot.setPointerCapture(event.pointerId); dot.focus(); event.preventDefault(); };
  dot.onpointermove = (event) => {
    if (!dot.hasPointerCapture(event.pointerId)) return;
    const box = svg.getBoundingClientRect();
    const at = ((event.clientY - box.top) / box.height) * HEIGHT;
    put(((HEIGHT / 2 - at) / (HEIGHT / 2 - 9)) * LIMIT);
  };
  dot.onkeydown = (event) => {
    const by = { ArrowUp: STEP, ArrowRight: STEP, ArrowDown: -STEP, ArrowLeft: -STEP }[event.key];
    if (by) { put(value + by); event.preventDefault(); }
  };
}

export default function (component) {
  const { data, parentElement } = component;
  const root = parentElement.querySelector(".toy");
  if (root.dataset.drawn) return;
  root.dataset.drawn = "yes";
  let state = structuredClone(data.start);

  function draw() {
    const rows = root.querySelector(".rows");
    rows.replaceChildren();
    state.x.forEach((values, j) => {
      const row = document.createElement("div");
      row.className = "row";
      row.dataset.channel = j;
      row.innerHTML = `<label class="name"><input type="radio" name="gone"> remove<br><b>channel ${j + 1}</b></label>
        <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" class="values"></svg>
        <svg viewBox="0 0 80 ${HEIGHT}" class="weights"></svg><div class="sums"></div>`;
      const [left, right] = row.querySelectorAll("svg");
      for (const [svg, wide] of [[left, WIDTH], [right, 80]])
        element("line", { x1: 0, x2: wide, y1: HEIGHT / 2, y2: HEIGHT / 2, class: "axis" }, svg);
      const line = element("line", { x1: 0, x2: WIDTH, class: "mean" }, left);
      row.mean = line;
      values.forEach((value, t) => handle(left, 22 + (t * (WIDTH - 44)) / (values.length - 1),
        `channel ${j + 1}, token ${t + 1}`, value, (next) => { state.x[j][t] = next; write(); }));
      state.w[j].forEach((value, i) => handle(right, 22 + i * 36, `channel ${j + 1}, weight ${i + 1}`, value,
        (next) => { state.w[j][i] = next; write(); }));
      const radio = row.querySelector("input");
      radio.checked = state.gone === j;
      radio.onchange = () => { state.gone = j; write(); };
      rows.append(row);
    });
    write();
  }

  function write() {
    const all = state.x.map((x, j) => numbers(x, state.w[j]));
    const lowest = all.reduce((best, each, j) => (each.score < all[best].score - 1e-9 ? j : best), 0);
    root.querySelectorAll(".row").forEach((row, j) => {
      const f = all[j], x = state.x[j], w = state.w[j];
      const at = HEIGHT / 2 - (f.mean / LIMIT) * (HEIGHT / 2 - 9);
      row.mean.setAttribute("y1", at);
      row.mean.setAttribute("y2", at);
      row.classList.toggle("lowest", j === lowest);
      row.classList.toggle("gone", j === state.gone);
      row.querySelector(".sums").innerHTML = [
        `mean = (${x.map(signed).join(" + ")}) / ${x.length} = <b data-of="mean">${show(f.mean)}</b>`,
        `variance = &Sigma; (x &minus; ${signed(f.mean)})&sup2; / ${x.length - 1} = <b data-of="variance">${show(f.variance, 3)}</b>`,
        `norm = &radic;(${w.map((each) => signed(each) + "&sup2;").join(" + ")}) = <b data-of="norm">${show(f.norm)}</b>`,
        `<span class="score">score = variance &middot; norm&sup2; = ${show(f.variance, 3)} &middot; ${show(f.norm ** 2)} =
          <b data-of="score">${show(f.score)}</b>${j === lowest ? " &larr; lowest: goes first" : ""}</span>`,
      ].join("<br>");
    });
    const f = all[state.gone], n = state.x[0].length, w = state.w[state.gone];
    const square = state.x[state.gone].reduce((a, b) => a + b * b, 0) / n * f.norm ** 2;
    root.querySelector(".result").innerHTML = `<b>Without channel ${state.gone + 1}</b> the output of a token misses
      x &middot; (${w.map((each) => show(each)).join(", ")}): a squared error of <b data-of="without">${show(square)}</b> a token.
      The <b>bias</b> mean &middot; weights = ${show(f.mean)} &middot; (${w.map((each) => show(each)).join(", ")}) =
      <b data-of="bias">(${f.bias.map((each) => show(each)).join(", ")})</b> takes its place. Then
      <b data-of="left">${show(f.score * (n - 1) / n)}</b> a token is left, which the bias cannot
      repair: ${n - 1}/${n} of the score, whose variance divides by ${n - 1} where this mean divides by ${n}.`;
  }

  root.querySelectorAll("button").forEach((button) => {
    button.onclick = () => { state = structuredClone(data[button.dataset.set]); draw(); };
  });
  draw();
}
