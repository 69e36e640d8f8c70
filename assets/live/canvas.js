// Bars for the domain mixture and the pruning ratio, and what they remove, redrawn in every frame of a drag.
// Needs arithmetic.js. `mount` is called by the app's component and by the page that `report --html` writes.

function colourTable(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const table = new Uint32Array(256);
  for (let at = 0; at < 256; at++) {
    const position = (at / 255) * (stops.length - 1), lower = Math.min(Math.floor(position), stops.length - 2);
    const [r, g, b] = [0, 1, 2].map((c) => Math.round(rgb[lower][c] + (rgb[lower + 1][c] - rgb[lower][c]) * (position - lower)));
    table[at] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

// Whole percents with a given sum, in proportion to some weights: the largest remainders are rounded up.
function percents(weights, sum) {
  const all = weights.reduce((a, b) => a + b, 0);
  const exact = weights.map((weight) => (all ? (weight / all) * sum : sum / weights.length));
  const shares = exact.map(Math.floor);
  const order = exact.map((_, at) => at).sort((a, b) => exact[b] - shares[b] - (exact[a] - shares[a]) || a - b);
  for (let at = 0, missing = sum - shares.reduce((a, b) => a + b, 0); at < missing; at++) shares[order[at]]++;
  return shares;
}

// Shares in percent after one bar was drawn to a value: the free others keep their proportions to each other.
function pushed(before, moved, value, held) {
  const others = before.map((_, d) => d).filter((d) => d !== moved && !held[d]);
  const fixed = before.reduce((sum, share, d) => sum + (held[d] && d !== moved ? share : 0), 0);
  const shares = before.slice();
  shares[moved] = others.length ? Math.min(value, 100 - fixed) : 100 - fixed;
  percents(others.map((d) => before[d]), 100 - fixed - shares[moved]).forEach((share, at) => (shares[others[at]] = share));
  return shares;
}

// The first and last of `count` units, or entries, in a column of a layer; all layers share the axis of the widest.
function within(column, columns, widest, count) {
  const edge = (at) => Math.min(Math.floor((at * widest) / columns), count);
  return [edge(column), edge(column + 1) - 1];
}

function mount(root, bytes, released) {
  const find = (name) => root.querySelector(name);
  const canvas = find("canvas"), context = canvas.getContext("2d"), image = document.createElement("canvas");
  const self = { frames: [], result: null, dragging: false };
  let live, shares, percent, start, ratio, bars, reference = null, scheduled = false, areas = [], table;

  function take(content) {
    if (self.dragging) return; // letting go brings another
    const before = live?.id;
    live = unpack(content);
    table = colourTable(live.colours.scale);
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
      input.style.setProperty("--bar", mixture ? live.colours.domains[d % live.colours.domains.length] : "color-mix(in srgb, var(--ink) 55%, transparent)");
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
    if (!self.dragging) { self.dragging = true; start = percent; reference = self.result; }
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
    self.result = preview(live, shares, ratio);
    paint(self.result);
    say(self.result);
    self.frames.push(performance.now() - began);
    if (self.frames.length > 600) self.frames.shift();
  }

  // How far a score lies above the cut (up to 1) or below it (down to -1); what goes and what stays is told apart.
  function distance(score, cut, kept) {
    const away = (live.reach.logarithmic ? (cut > 0 ? (score > 0 ? Math.log10(score / cut) : -Infinity) : Infinity) : score - cut) / live.reach.limit;
    return kept ? Math.min(Math.max(away, 0.05), 1) : Math.max(Math.min(away, -0.05), -1);
  }

  function paint(result) {
    const style = getComputedStyle(root), ink = style.getPropertyValue("--ink"), density = window.devicePixelRatio || 1;
    const layers = Math.max(...live.sites.map((site) => site.layer)) + 1, row = Math.max(3, Math.min(24, Math.floor(270 / layers)));
    const width = canvas.clientWidth || 900, height = 20 + layers * row + 34, margin = 30, gap = 14;
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
    for (let layer = 0; layer < layers; layer += step) context.fillText(layer, margin - 6, 20 + layer * row + row / 2 + 4);
    context.textAlign = "left";
    const parts = live.modules.map(({ name }) => { // narrower where units have many channels, as heads do
      const site = live.sites.find((each) => each.name === name);
      return site.entries < site.channels ? 1 : 3.3;
    });
    const inner = width - margin - live.modules.length * gap, all = parts.reduce((a, b) => a + b, 0) / 0.86;
    let x = margin;
    areas = live.modules.map((module, m) => {
      const drawn = area(result, module, x, (parts[m] / all) * inner, layers, row, ink);
      x += drawn.width + gap;
      return drawn;
    });
    context.fillText("kept share", x, 13);
    for (let layer = 0; layer < layers; layer++) {
      const sites = result.sites.filter((each) => each.site.layer === layer);
      const [kept, full] = sites.reduce(([a, b], { site, share }) => [a + site.parameters * share, b + site.parameters], [0, 0]);
      for (const [alpha, share] of [[0.15, 1], [0.75, kept / full]]) {
        context.globalAlpha = alpha;
        context.fillRect(x, 20 + layer * row, 0.14 * inner * share, Math.max(row - 1, 1));
      }
      context.globalAlpha = 1;
    }
    legend(margin, 20 + layers * row + 18, ink);
  }

  function area(result, module, x, width, layers, row, ink) {
    const sites = result.sites.filter((each) => each.site.name === module.name), most = (of) => Math.max(...sites.map(of));
    const columns = most(({ site }) => site.columns), units = most(({ site }) => site.units), entries = most(({ site }) => site.entries);
    image.width = columns;
    image.height = layers;
    const pixels = new ImageData(columns, layers), data = new Uint32Array(pixels.data.buffer);
    for (const { site, score, kept, cut, width: channels } of sites) {
      for (let column = 0; column < columns; column++) {
        let sum = 0, weight = 0;
        const [first, last] = within(column, columns, units, site.units);
        for (let u = first; u <= last; u++) { sum += distance(score[u], cut, kept[u]) * channels[u]; weight += channels[u]; }
        if (weight) data[site.layer * columns + column] = table[Math.round((sum / weight + 1) * 127.5)];
      }
    }
    image.getContext("2d").putImageData(pixels, 0, 0);
    context.drawImage(image, x, 20, width, layers * row);
    context.fillStyle = ink;
    const { entries: some, units: groups } = sites[0].site, size = Math.round(some / groups);
    context.fillText(`${entries.toLocaleString("en")} ${module.units}${size > 1 ? `, in groups of ${size}` : ""}`, x, 13);
    return { module, x, width, row, layers, columns, sites, units, entries };
  }

  function legend(x, y, ink) {
    for (let at = 0; at < 160; at++) {
      const colour = table[Math.floor(at * 1.6)];
      context.fillStyle = `rgb(${colour & 255}, ${(colour >> 8) & 255}, ${(colour >> 16) & 255})`;
      context.fillRect(x + at, y - 8, 1, 10);
    }
    context.fillStyle = ink;
    context.fillText(`removed: down to ${live.reach.ends[0]} | kept: up to ${live.reach.ends[1]}`, x + 168, y + 1);
  }

  function say(result) {
    let changed = 0;
    result.sites.forEach(({ kept, width }, s) => {
      const before = reference?.sites[s].kept;
      if (before) for (let u = 0; u < kept.length; u++) if (kept[u] !== before[u]) changed += width[u];
    });
    const about = live.grouped ? "about " : "", number = (value) => Math.round(value).toLocaleString("en");
    const counts = live.modules.map(({ name, units }) => {
      const sites = result.sites.filter(({ site }) => site.name === name);
      const [kept, all] = sites.reduce(([a, b], { site, share }) => [a + site.entries * share, b + site.entries], [0, 0]);
      return `${about}${number(kept)} of ${number(all)} ${units}`;
    });
    find(".says").textContent =
      `Removes ${(100 * result.ratio).toFixed(2)}% of the layers' parameters, keeps ${counts.join(" and ")}. ` +
      (changed ? `This drag changed the decision on ${about}${number(changed)} channels.` : "") +
      (result.ratio < ratio - 0.005 ? " The minimum widths of the layers allow no more." : "");
  }

  function describe() {
    canvas.setAttribute(
      "aria-label",
      `Scores by module and layer, relative to the cut. ${find(".says").textContent}` +
        (live.plain_sliders ? " The sliders of the sidebar change the mixture and the ratio." : ""),
    );
  }

  function here(event) {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top - 20;
    const at = areas.find((each) => x >= each.x && x < each.x + each.width && y >= 0 && y < each.row * each.layers);
    const layer = at && Math.floor(y / at.row), each = at?.sites.find(({ site }) => site.layer === layer);
    find(".here").textContent = each ? words(at, each, Math.floor(((x - at.x) / at.width) * at.columns)) : "";
  }

  function words({ module, columns, units, entries }, { site, score, kept, cut, width }, column) {
    const [first, last] = within(column, columns, entries, site.entries), [from, to] = within(column, columns, units, site.units);
    if (to < from) return "";
    let stay = 0, all = 0, low = Infinity, high = -Infinity;
    for (let u = from; u <= to; u++) {
      stay += kept[u] * width[u];
      all += width[u];
      low = Math.min(low, score[u]);
      high = Math.max(high, score[u]);
    }
    const digits = (value) => Number(value.toPrecision(3)).toString();
    const relative = live.reach.logarithmic && cut > 0
      ? `${low === high ? "" : `${digits(low / cut)} to `}${digits(high / cut)} times the cut`
      : `${digits(high - cut)} deviations from the cut`;
    const names = first === last ? `${module.unit} ${first}` : `${module.units} ${first} to ${last}`;
    const share = stay === 0 ? "removed" : stay === all ? "kept" : `${live.grouped ? "about " : ""}${Math.round((100 * stay) / all)}% kept`;
    return `Layer ${site.layer}, ${names}: ${share}; score ${relative}.`;
  }

  canvas.addEventListener("pointermove", here);
  canvas.addEventListener("pointerleave", () => (find(".here").textContent = ""));
  root.addEventListener("transitionend", () => paint(self.result));
  new ResizeObserver(() => { if (self.result) paint(self.result); }).observe(root);
  self.take = take;
  self.move = move;
  take(bytes);
  return self;
}
