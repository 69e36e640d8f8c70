// Bars for the domain mixture and the pruning ratio, and what they remove, redrawn in every frame of a drag.
// Needs arithmetic.js. `mount` is called by the app's component and by the page that `report --html` writes.

const COLOURS = ["#2a78b5", "#e07b39", "#3f9b6f", "#b0518f", "#8c7a3d", "#5d6bb0", "#c2483d", "#4aa3a3"];
const SCALES = { // what goes, the cut, what stays: told apart without red-green vision, on either paper
  light: ["#134a86", "#7fb2d9", "#f4f3f0", "#e8877a", "#8e0b22"],
  dark: ["#9bd2ff", "#3d7fb5", "#2f3740", "#a9493c", "#ff9c85"],
};
const DECADES = 1; // of a score above and below the cut, to the ends of the colour scale
const DEVIATIONS = 2; // the same where scores are standardised

function colourTable(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const table = new Uint32Array(256);
  for (let at = 0; at < 256; at++) {
    const place_ = (at / 255) * (stops.length - 1), left = Math.min(Math.floor(place_), stops.length - 2);
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(rgb[left][c] + (rgb[left + 1][c] - rgb[left][c]) * (place_ - left)));
    table[at] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

// Whole percents that sum to what is asked, in proportion to some weights: the largest remainders are rounded up.
function percents(weights, sum_) {
  const total_ = weights.reduce((a, b) => a + b, 0);
  const exact = weights.map((weight) => (total_ ? (weight / total_) * sum_ : sum_ / weights.length));
  const found = exact.map(Math.floor);
  const order = exact.map((_, at) => at).sort((a, b) => exact[b] - found[b] - (exact[a] - found[a]) || a - b);
  for (let at = 0, left = sum_ - found.reduce((a, b) => a + b, 0); at < left; at++) found[order[at]]++;
  return found;
}

// Shares in percent after one bar was drawn to a value: the free others keep their proportions to each other.
function pushed(before, moved, value, held) {
  const others = before.map((_, d) => d).filter((d) => d !== moved && !held[d]);
  const fixed = before.reduce((sum_, share, d) => sum_ + (held[d] && d !== moved ? share : 0), 0);
  const found = before.slice();
  found[moved] = others.length ? Math.min(value, 100 - fixed) : 100 - fixed;
  percents(others.map((d) => before[d]), 100 - fixed - found[moved]).forEach((share, at) => (found[others[at]] = share));
  return found;
}

// The first and last of some entries in a column; layers may be narrower than the widest, and share one axis.
function within(column, columns, widest, entries) {
  const edge = (at) => Math.min(Math.floor((at * widest) / columns), entries);
  return [edge(column), edge(column + 1) - 1];
}

// How far a score lies above the cut (up to 1) or below it (down to -1).
function distance(score, cut, standardised) {
  if (standardised) return (score - cut) / DEVIATIONS;
  return cut > 0 ? (score > 0 ? Math.log(score / cut) / (DECADES * Math.LN10) : -1) : 1;
}

function mount(root, bytes, released) {
  const find = (name) => root.querySelector(name);
  const canvas = find("canvas"), context = canvas.getContext("2d"), image = document.createElement("canvas");
  const self = { frames: [], found: null, dragging: false };
  let live, shares, percent, start, ratio, bars, reference = null, scheduled = false, areas = [], table, dark = null;

  function take(content) {
    if (self.dragging) return; // letting go brings another
    const before = live?.id;
    live = unpack(content);
    shares = live.shares;
    const now = percents(shares, 100);
    // what the last drag changed is told until something else is changed
    if (before !== live.id || ratio !== live.ratio || !now.every((share, d) => share === percent[d])) reference = null;
    percent = now;
    ratio = live.ratio;
    build();
    draw();
    describe();
  }

  function build() {
    bars = [...live.domains, "Pruning ratio"].map((name, d) => {
      const label = document.createElement("label"), words = document.createElement("span");
      const title = document.createElement("i"), value = document.createElement("b"), input = document.createElement("input");
      const mixture = d < live.domains.length;
      title.textContent = mixture && live.held[d] ? `${name} (locked)` : name;
      Object.assign(input, { type: "range", min: 0, max: mixture ? 100 : 90, step: 1, disabled: mixture && (live.held[d] || live.domains.length < 2) });
      input.setAttribute("aria-label", mixture ? `Share of ${name}` : name);
      input.style.setProperty("--bar", mixture ? COLOURS[d % COLOURS.length] : "color-mix(in srgb, var(--ink) 55%, transparent)");
      if (live.plain_sliders) { // beside these stand others for keyboard and screen reader
        label.setAttribute("aria-hidden", "true");
        input.tabIndex = -1;
      }
      input.addEventListener("input", () => move(d, Number(input.value)));
      // a bar that comes back to where it was changes nothing, and is let go all the same
      for (const end of ["change", "keyup", "pointerup", "pointercancel"]) input.addEventListener(end, release);
      words.append(title, value);
      label.append(words, input);
      return { label, input, value };
    });
    find(".bars").replaceChildren(...bars.map((bar) => bar.label));
    set();
  }

  function set() {
    bars.forEach(({ input, value }, d) => {
      const at = d < live.domains.length ? percent[d] : Math.round(100 * ratio);
      input.value = at;
      input.style.setProperty("--at", `${(100 * at) / input.max}%`);
      value.textContent = `${at}%`;
    });
  }

  function move(d, value) {
    if (!self.dragging) { self.dragging = true; start = percent; reference = self.found; }
    if (d < live.domains.length) {
      percent = pushed(start, d, value, live.held);
      shares = percent.map((share) => share / 100);
    } else ratio = value / 100;
    set();
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; draw(); });
  }

  function release() {
    if (!self.dragging) return;
    self.dragging = false;
    describe();
    released({ mixture: Object.fromEntries(live.domains.map((name, d) => [name, percent[d]])), ratio: Math.round(100 * ratio) });
  }

  function draw() {
    const began = performance.now();
    const found = (self.found = preview(live, shares, ratio));
    paint(found);
    say(found);
    self.frames.push(performance.now() - began);
    if (self.frames.length > 600) self.frames.shift();
  }

  function paint(found) {
    const style = getComputedStyle(root), ink = style.getPropertyValue("--ink"), density = window.devicePixelRatio || 1;
    context.fillStyle = style.getPropertyValue("--paper");
    const paper = parseInt(context.fillStyle.slice(1), 16);
    const isDark = (paper >> 16) + ((paper >> 8) & 255) + (paper & 255) < 384;
    if (isDark !== dark) { dark = isDark; table = colourTable(SCALES[dark ? "dark" : "light"]); }
    const layers = live.sites.length / 2, row = Math.max(3, Math.min(24, Math.floor(270 / layers)));
    const width = canvas.clientWidth || 900, height = 20 + layers * row + 34, left = 30, gap = 14;
    if (canvas.width !== Math.round(width * density) || canvas.height !== Math.round(height * density)) {
      canvas.width = Math.round(width * density);
      canvas.height = Math.round(height * density);
      canvas.style.height = `${height}px`;
    }
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = `12px ${style.fontFamily}`;
    context.imageSmoothingEnabled = false;
    context.fillStyle = ink;
    context.textAlign = "right";
    const step = Math.max(1, Math.ceil(14 / row));
    for (let layer = 0; layer < layers; layer += step) context.fillText(layer, left - 6, 20 + layer * row + row / 2 + 4);
    context.textAlign = "left";
    const inner = width - left - 2 * gap;
    const sizes = [0.2, 0.66, 0.14].map((part) => part * inner);
    areas = ["attn", "mlp"].map((kind, at) => area(found, kind, left + (at ? sizes[0] + gap : 0), sizes[at], row, ink));
    const x = left + sizes[0] + sizes[1] + 2 * gap;
    context.fillText("retained share", x, 13);
    for (let layer = 0; layer < layers; layer++) {
      let kept = 0, all = 0;
      for (const each of found.sites.slice(2 * layer, 2 * layer + 2)) { kept += each.site.parameters * each.share; all += each.site.parameters; }
      context.globalAlpha = 0.15;
      context.fillRect(x, 20 + layer * row, sizes[2], Math.max(row - 1, 1));
      context.globalAlpha = 0.75;
      context.fillRect(x, 20 + layer * row, (sizes[2] * kept) / all, Math.max(row - 1, 1));
      context.globalAlpha = 1;
    }
    legend(left, 20 + layers * row + 18, ink);
  }

  function area(found, kind, x, width, row, ink) {
    const sites = found.sites.filter((each) => each.site.kind === kind);
    const standardised = live.options.normalise.startsWith("zscore");
    const columns = Math.max(...sites.map(({ site }) => (kind === "attn" ? site.heads : live.grouped ? site.columns : Math.min(site.items, live.columns))));
    const widest = Math.max(...sites.map((each) => each.kept.length));
    image.width = columns;
    image.height = sites.length;
    const pixels = new ImageData(columns, sites.length), data = new Uint32Array(pixels.data.buffer);
    sites.forEach((each, layer) => {
      const size = kind === "mlp" ? each.site.size : null, cut = each.cut === -Infinity ? each.lowestKept : each.cut;
      for (let column = 0; column < columns; column++) {
        let sum_ = 0, weight = 0;
        const [first_, last] = within(column, columns, widest, each.kept.length);
        for (let i = first_; i <= last; i++) {
          let value = distance(each.score[i], cut, standardised);
          if (each.kept[i]) value = value > 1 ? 1 : value < 0.05 ? 0.05 : value;
          else value = value < -1 ? -1 : value > -0.05 ? -0.05 : value;
          sum_ += value * (size ? size[i] : 1);
          weight += size ? size[i] : 1;
        }
        if (weight) data[layer * columns + column] = table[Math.round((sum_ / weight + 1) * 127.5)];
      }
    });
    image.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(image, x, 20, width, sites.length * row);
    const most = Math.max(...sites.map(({ site }) => (kind === "attn" ? site.heads : site.channels)));
    context.fillStyle = ink;
    const { group } = sites[0].site;
    const heads = `${most} attention heads` + (group > 1 && live.options.attention_unit === "kv_group" ? `, in groups of ${group}` : "");
    context.fillText(kind === "attn" ? heads : `${most.toLocaleString("en")} MLP channels`, x, 13);
    return { kind, x, width, row, columns, sites, widest, most };
  }

  function legend(x, y, ink) {
    for (let at = 0; at < 160; at++) {
      context.fillStyle = `#${[table[Math.floor(at * 1.6)]].map((c) => [c & 255, (c >> 8) & 255, (c >> 16) & 255].map((v) => v.toString(16).padStart(2, "0")).join(""))}`;
      context.fillRect(x + at, y - 8, 1, 10);
    }
    context.fillStyle = ink;
    const ends = live.options.normalise.startsWith("zscore") ? ["- 2 deviations", "+ 2 deviations"] : ["/ 10", "x 10"];
    context.fillText(`removed: down to cut ${ends[0]} | retained: up to cut ${ends[1]}`, x + 168, y + 1);
  }

  function say(found) {
    const count = { attn: [0, 0], mlp: [0, 0] };
    let swapped = 0;
    found.sites.forEach((each, s) => {
      const whole = each.site.kind === "attn" ? each.site.heads : each.site.channels;
      count[each.site.kind][0] += Math.round(whole * each.share);
      count[each.site.kind][1] += whole;
      const before = reference?.sites[s].kept, size = each.site.size;
      if (before && each.site.kind === "mlp")
        for (let i = 0; i < before.length; i++) if (each.kept[i] !== before[i]) swapped += size ? size[i] : 1;
    });
    const number = (value) => value.toLocaleString("en"), about = live.grouped ? "about " : "";
    const { attn, mlp } = count;
    find(".says").textContent =
      `Removes ${(100 * found.ratio).toFixed(2)}% of the layers' parameters: retained are ${about}${number(mlp[0])} of ` +
      `${number(mlp[1])} MLP channels and ${number(attn[0])} of ${number(attn[1])} attention heads. ` +
      (swapped ? `This drag turned the decision on ${about}${number(swapped)} MLP channels.` : "");
    if (found.ratio < ratio - 0.005) find(".says").textContent += " The floors of the layers allow no more.";
  }

  function describe() {
    canvas.setAttribute(
      "aria-label",
      `Scores of attention heads and MLP channels by layer, relative to the cut. ${find(".says").textContent}` +
        (live.plain_sliders ? " The sliders of the sidebar change the mixture and the ratio." : ""),
    );
  }

  function here(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top - 20;
    const at = areas.find((each) => x >= each.x && x < each.x + each.width && y >= 0 && y < each.row * each.sites.length);
    if (!at) return void (find(".here").textContent = "");
    const layer = Math.floor(y / at.row), column = Math.floor(((x - at.x) / at.width) * at.columns);
    const each = at.sites[layer], size = at.kind === "mlp" ? each.site.size : null;
    const channels = at.kind === "mlp" ? each.site.channels : each.site.heads;
    const [first_, last] = within(column, at.columns, at.most, channels);
    const [from, to] = within(column, at.columns, at.widest, each.kept.length);
    if (to < from) return void (find(".here").textContent = "");
    let kept = 0, all = 0, low = Infinity, high = -Infinity;
    for (let i = from; i <= to; i++) {
      kept += each.kept[i] * (size ? size[i] : 1);
      all += size ? size[i] : 1;
      low = Math.min(low, each.score[i]);
      high = Math.max(high, each.score[i]);
    }
    const cut = each.cut === -Infinity ? each.lowestKept : each.cut, digits = (value) => Number(value.toPrecision(3)).toString();
    const relative = live.options.normalise.startsWith("zscore") || !(cut > 0)
      ? `${digits(high - cut)} deviations from the cut`
      : `${low === high ? "" : `${digits(low / cut)} to `}${digits(high / cut)} times the cut`;
    const what = at.kind === "attn" ? "head" : "MLP channel";
    find(".here").textContent =
      `Layer ${layer}, ${what}${first_ === last ? ` ${first_}` : `s ${first_} to ${last}`}: ` +
      `${all === 1 ? (kept ? "retained" : "removed") : `${live.grouped && size ? "about " : ""}${kept} of ${all} retained`}; score ${relative}.`;
  }

  canvas.addEventListener("pointermove", here);
  canvas.addEventListener("pointerleave", () => (find(".here").textContent = ""));
  root.addEventListener("transitionend", () => paint(self.found));
  new ResizeObserver(() => { if (self.found) paint(self.found); }).observe(root);
  self.take = take;
  self.move = move;
  self.repeat = (n) => { while (n--) draw(); };
  take(bytes);
  return self;
}
