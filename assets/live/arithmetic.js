// What a mixture and a ratio remove: the arithmetic of pruning/method and pruning/engine/budget.py, in the browser.
// `unpack` reads what pruning/visualization/live.py packed, `preview` fuses, scores, normalises and cuts. Every step
// follows the Python function named beside it; tests/browser/test_live.py holds the two together.
// An item is a channel; of a model too wide for that, one channel that stands for `size` of its neighbours.

function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true);
  const live = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  let at = 4 + length;
  const numbers = (count) => {
    const part = new Float32Array(bytes.slice(at, at + 4 * count).buffer);
    at += 4 * count;
    return Float64Array.from(part);
  };
  const needs = new Set(live.arrays);
  for (const site of live.sites) {
    const n = site.items;
    if (live.grouped) site.size = numbers(n);
    if (needs.has("norm")) site.norm = numbers(n);
    if (needs.has("mean_abs")) site.meanAbs = numbers(n);
    if (needs.has("given")) site.given = numbers(n);
    site.variance = [], site.mean = [], site.meanSquare = [];
    for (const [d, { count, weight }] of site.samples.entries()) {
      const m2 = needs.has("m2") ? numbers(n) : null;
      if (needs.has("mean")) site.mean.push(numbers(n));
      if (m2) site.variance.push(m2.map((value) => value / Math.max(count - 1, 1)));
      if (needs.has("mean_square"))
        site.meanSquare.push(m2.map((value, i) => value / count + site.mean[d][i] ** 2 * (weight / count)));
    }
    site.squaredNorm = site.norm?.map((value) => value * value);
    for (const name of ["score", "scratch", "values", "sorted", "unitScore"]) site[name] = new Float64Array(n);
    site.sortedSize = live.grouped ? new Float64Array(n) : null;
    site.entries = site.kind === "attn" ? site.heads : n;
  }
  return live;
}

// --- moments.fuse, scores.SCORES: into site.score ------------------------------------------------------------
function mix(into, parts, shares) {
  into.fill(0);
  for (let d = 0; d < parts.length; d++) {
    const share = shares[d], part = parts[d];
    if (share > 0) for (let i = 0; i < into.length; i++) into[i] += share * part[i];
  }
}

function mixVariance(site, shares, options) {
  const { score, scratch: mean, sorted: blend } = site;
  mix(score, site.variance, shares);
  if (options.fusion === "total") {
    mix(mean, site.mean, shares);
    blend.fill(0);
    for (let d = 0; d < shares.length; d++) {
      const share = shares[d], part = site.mean[d];
      if (share > 0) for (let i = 0; i < blend.length; i++) blend[i] += share * (part[i] - mean[i]) * (part[i] - mean[i]);
    }
    for (let i = 0; i < score.length; i++) score[i] += blend[i];
  }
  if (options.worst_domain) {
    const worst = options.worst_domain;
    blend.fill(-Infinity);
    for (let d = 0; d < shares.length; d++)
      if (shares[d] > 0) for (let i = 0; i < blend.length; i++) blend[i] = Math.max(blend[i], site.variance[d][i]);
    for (let i = 0; i < score.length; i++) score[i] = (1 - worst) * score[i] + worst * blend[i];
  }
}

const SCORES = {
  fluctuation: (site, shares, options) => {
    mixVariance(site, shares, options);
    for (let i = 0; i < site.items; i++) site.score[i] *= site.squaredNorm[i];
  },
  wanda_sp: (site, shares) => {
    mix(site.score, site.meanSquare, shares);
    for (let i = 0; i < site.items; i++) site.score[i] = site.meanAbs[i] * Math.sqrt(site.score[i]);
  },
  magnitude: (site) => site.score.set(site.norm),
  input_variance: mixVariance,
  random: (site) => site.score.set(site.given),
};

// --- normalise.Scale, normalise.NORMALISERS ----------------------------------------------------------------
// The value at place k of the sorted values, each as often as its size says; quickselect, reorders both arrays.
function place(values, sizes, k) {
  let low = 0, high = values.length - 1, before = 0;
  while (low < high) {
    const a = values[low], b = values[(low + high) >> 1], c = values[high];
    const pivot = a < b ? (b < c ? b : a < c ? c : a) : a < c ? a : b < c ? c : b;
    let i = low, j = high;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i <= j) {
        const value = values[i]; values[i] = values[j]; values[j] = value;
        if (sizes) { const size = sizes[i]; sizes[i] = sizes[j]; sizes[j] = size; }
        i++; j--;
      }
    }
    let left = j - low + 1, middle = i - j - 1;
    if (sizes) {
      left = middle = 0;
      for (let at = low; at <= j; at++) left += sizes[at];
      for (let at = j + 1; at < i; at++) middle += sizes[at];
    }
    if (k < before + left) high = j;
    else if (k < before + left + middle) return pivot;
    else { before += left + middle; low = i; }
  }
  return values[low];
}

function sumOf(values) {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
}

function median(site) {
  const n = site.channels, half = n >> 1;
  const upper = place(site.sorted, site.sortedSize, half);
  return n % 2 ? upper : (place(site.sorted, site.sortedSize, half - 1) + upper) / 2;
}

function percentile99(site) {
  const at = 0.99 * (site.channels - 1), first = Math.floor(at), part = at - first;
  const a = place(site.sorted, site.sortedSize, first);
  const b = place(site.sorted, site.sortedSize, Math.min(first + 1, site.channels - 1));
  return part >= 0.5 ? b - (b - a) * (1 - part) : a + (b - a) * part; // as numpy interpolates
}

function total(site, most = Infinity) { // of the values, none of them counted as more than `most`
  const { values, size } = site;
  let sum = 0;
  if (size) for (let i = 0; i < values.length; i++) sum += size[i] * Math.min(values[i], most);
  else for (let i = 0; i < values.length; i++) sum += values[i] < most ? values[i] : most;
  return sum;
}

function zscore({ values, size, channels }) {
  const mean = total({ values, size }) / channels;
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += (values[i] - mean) ** 2 * (size ? size[i] : 1);
  return [mean, Math.sqrt(squares / (channels - 1)) || 1];
}

// Each gives what is subtracted and what is divided by. All channels are there, so the three z-scores agree.
const NORMALISERS = {
  soft_share: (site) => {
    const middle = median(site), clip = percentile99(site);
    const clipped = total(site, clip) / site.channels;
    return [0, (site.channels * middle * (middle / (clipped || 1)) || total(site) || 1) ** 0.75];
  },
  robust_share: (site) => [0, median(site) * site.channels || total(site) || 1],
  share: (site) => [0, total(site) || 1],
  zscore, zscore_zero: zscore, zscore_first: zscore,
  none: () => [0, 1],
};

// --- units.site_units --------------------------------------------------------------------------------------
// Indices in the order of their values; equal values keep their order.
function argsort(values) {
  const order = new Int32Array(values.length);
  for (let i = 0; i < order.length; i++) order[i] = i;
  const before = (i, j) => values[i] < values[j] || (values[i] === values[j] && i < j);
  const stack = [0, order.length - 1];
  while (stack.length) {
    let high = stack.pop(), low = stack.pop();
    while (high - low > 12) {
      const a = order[low], b = order[(low + high) >> 1], c = order[high];
      const pivot = before(a, b) ? (before(b, c) ? b : before(a, c) ? c : a) : before(a, c) ? a : before(b, c) ? c : b;
      let i = low, j = high;
      while (i <= j) {
        while (before(order[i], pivot)) i++;
        while (before(pivot, order[j])) j--;
        if (i <= j) { const at = order[i]; order[i] = order[j]; order[j] = at; i++; j--; }
      }
      if (j - low < high - i) { stack.push(i, high); high = j; } else { stack.push(low, j); low = i; }
    }
    for (let i = low + 1; i <= high; i++) {
      const at = order[i];
      let j = i - 1;
      while (j >= low && before(at, order[j])) order[j + 1] = order[j--];
      order[j + 1] = at;
    }
  }
  return order;
}

function members(live, site, order) { // -> the entries of each unit
  const { options } = live;
  if (site.kind === "mlp") {
    const width = options.round_to, sorted = Array.from(argsort(order)), found = [];
    const short = sorted.length % width;
    if (short) found.push(sorted.slice(0, short));
    for (let at = short; at < sorted.length; at += width) found.push(sorted.slice(at, at + width));
    return found;
  }
  if (site.groups) return site.groups;
  const groups = [];
  for (let head = 0; head < site.heads; head += site.group)
    groups.push(Array.from({ length: site.group }, (_, at) => head + at));
  if (options.attention_unit === "kv_group" || site.group === 1) return (site.groups = groups);
  const sorted = groups.map((group) => Array.from(argsort(group.map((head) => order[head])), (at) => group[at]));
  return sorted[0].map((_, rank) => sorted.map((group) => group[rank]));
}

function units(live, site, shares) {
  const { options, costs } = live, { score, values } = site;
  SCORES[options.score](site, shares, options);
  if (site.kind === "attn" && options.square_attention) for (let i = 0; i < site.items; i++) values[i] = score[i] ** 2;
  else values.set(score);
  site.sorted.set(values);
  if (site.size) site.sortedSize.set(site.size);
  const [shift, scale] = NORMALISERS[options.normalise](site);
  for (let i = 0; i < site.items; i++) values[i] = (values[i] - shift) / scale;
  const unit = site.kind === "mlp" && (options.round_to === 1 || live.grouped) ? single(live, site) : joint(live, site);
  const { remove, keep } = site;
  unit.rank = unit.score;
  const rests = site.kind === "mlp" && unit.groups;
  if (remove.length || keep.length || rests) {
    const kept = new Set(keep), removed = new Set(remove);
    unit.rank = new Float64Array(unit.count);
    for (let u = 0; u < unit.count; u++) {
      const entries = unit.groups ? unit.groups[u] : [u];
      unit.forced[u] = entries.some((entry) => removed.has(entry)) ? 1 : 0;
      unit.protected[u] = entries.some((entry) => kept.has(entry)) ? 1 : 0;
      const rest = rests && unit.size[u] < options.round_to;
      unit.rank[u] = unit.forced[u] ? -Infinity : rest ? -Number.MAX_VALUE : unit.score[u];
    }
  }
  protect(unit, site.floor);
  return unit;
}

function single(live, site) { // every item is a unit
  const { costs, options } = live, count = site.items, { values, unitScore } = site;
  if (!site.unit) {
    const size = site.size ?? new Float64Array(count).fill(1);
    const cost = size.map((channels) => channels * costs.channel);
    site.unit = { site, count, groups: null, size, cost, score: unitScore };
    site.unit.forced = new Uint8Array(count);
    site.unit.protected = new Uint8Array(count);
  }
  for (let u = 0; u < count; u++)
    unitScore[u] = options.unit_score === "mean" ? values[u] : (values[u] * costs.channel) / costs.channel;
  site.unit.protected.fill(0);
  return site.unit;
}

function joint(live, site) { // units of several heads or channels
  const { costs, options } = live, attention = site.kind === "attn";
  let values = site.values; // of the entries: heads or channels
  if (attention) {
    values = new Float64Array(site.heads);
    const each = site.items / site.heads;
    for (let head = 0, i = 0; head < site.heads; head++)
      for (const end = i + each; i < end; i++) values[head] += site.values[i] * (site.size ? site.size[i] : 1);
  }
  const order = values.slice();
  for (const entry of site.remove) order[entry] = -Infinity;
  for (const entry of site.keep) order[entry] = Infinity;
  const groups = members(live, site, order), count = groups.length;
  const unit = { site, count, groups };
  for (const name of ["score", "cost", "size"]) unit[name] = new Float64Array(count);
  for (const name of ["forced", "protected"]) unit[name] = new Uint8Array(count);
  const whole = options.attention_unit === "kv_group" || site.group === 1;
  for (let u = 0; u < count; u++) {
    const size = (unit.size[u] = groups[u].length);
    let value = 0;
    for (const entry of groups[u]) value += values[entry];
    unit.cost[u] = attention ? size * costs.head + (whole ? costs.kv_head : 0) : size * costs.channel;
    unit.score[u] =
      options.unit_score === "mean" ? value / (size * (attention ? costs.head_dim : 1)) : (value * costs.channel) / unit.cost[u];
  }
  return unit;
}

// units._highest: the highest-ranked units that together have `floor` entries.
function protect(unit, floor) {
  const { site, groups, size, count } = unit;
  let rank = unit.score;
  if (unit.rank !== rank) rank = rank.map((value, u) => (unit.forced[u] ? -Infinity : unit.protected[u] ? Infinity : value));
  let sorted = site.sorted, sizes = site.sortedSize, entries = site.channels;
  if (groups) [sorted, sizes, entries] = [rank.slice(), size.slice(), sumOf(size)];
  else { sorted.set(rank); sizes?.set(size); }
  const least = place(sorted, sizes, Math.max(entries - floor, 0));
  let left = floor;
  for (let u = 0; u < count; u++) if (rank[u] > least) { unit.protected[u] = 1; left -= size[u]; }
  for (let u = count - 1; u >= 0 && left > 0; u--) if (rank[u] === least) { unit.protected[u] = 1; left -= size[u]; }
}

// --- allocation.ALLOCATIONS: (live, units, ratio, shares) -> for every site the chosen units, 1 for what goes --------
function cutEverywhere(live, all, ratio) { // global_, _nearest
  const most = all.reduce((sum, unit) => sum + unit.count, 0);
  const work = (live.work ??= {});
  if (work.rank?.length !== most) {
    Object.assign(work, { rank: new Float64Array(most), cost: new Float64Array(most), gone: new Uint8Array(most) });
    Object.assign(work, { from: new Int32Array(most), window: new Int32Array(most) });
  }
  const { rank, cost, gone: flat, from } = work;
  flat.fill(0);
  let count = 0, start = 0;
  for (const unit of all) {
    for (let u = 0; u < unit.count; u++)
      if (!unit.protected[u]) { rank[count] = unit.rank[u]; cost[count] = unit.cost[u]; from[count++] = start + u; }
    start += unit.count;
  }
  let budget = ratio * live.parameters;
  let { window } = work, size = count;
  for (let i = 0; i < count; i++) window[i] = i;
  while (size > 512) {
    const sample = Float64Array.from({ length: 31 }, (_, s) => rank[window[Math.floor((s * (size - 1)) / 30)]]).sort();
    const pivot = sample[15];
    let low = 0, spent = 0;
    for (let at = 0; at < size; at++) if (rank[window[at]] < pivot) { low++; spent += cost[window[at]]; }
    if (!low) break; // half of the sample are the lowest value
    const below = spent <= budget;
    let kept = 0;
    for (let at = 0; at < size; at++) {
      const i = window[at];
      if (rank[i] < pivot !== below) window[kept++] = i;
      else if (below) flat[from[i]] = 1;
    }
    if (below) budget -= spent;
    size = kept;
  }
  window = window.subarray(0, size);
  const order = argsort(Float64Array.from(window, (i) => rank[i]));
  const nearest = nearestCount(Float64Array.from(order, (at) => cost[window[at]]), budget);
  for (let at = 0; at < nearest; at++) flat[from[window[order[at]]]] = 1;
  start = 0;
  return all.map((unit) => {
    const chosen = flat.subarray(start, (start += unit.count)); // forced units are the lowest, and among them
    for (let u = 0; u < unit.count; u++) if (unit.forced[u]) chosen[u] = 1;
    return chosen;
  });
}

function nearestCount(cost, budget) {
  let spent = 0, last = 0, count = 0;
  while (spent < budget && count < cost.length) { last = spent; spent += cost[count++]; }
  if (spent < budget) return count; // all of them, and it is not enough
  return count > 0 && budget - last < spent - budget ? count - 1 : count;
}

// _free: the units that may go, the first to go first. Where all cost the same nobody needs their order.
function free(unit) {
  const count = unit.count - sumOf(unit.protected), even = !unit.groups && !unit.site.size;
  const rank = unit.rank.map((value, u) => (unit.protected[u] ? Infinity : value));
  return { unit, count, even, rank, order: even ? null : argsort(rank).subarray(0, count) };
}

function costs({ unit, count, even, order }) { // of the free units, in their order
  return even ? new Float64Array(count).fill(unit.cost[0]) : Float64Array.from(order, (u) => unit.cost[u]);
}

function losses({ unit, count, even, rank, order }) {
  if (!even) return Float64Array.from(order, (u) => unit.score[u] * unit.cost[u]);
  if (unit.rank !== unit.score) return Float64Array.from(argsort(rank).subarray(0, count), (u) => unit.score[u] * unit.cost[u]);
  return rank.slice().sort().subarray(0, count).map((score) => score * unit.cost[0]);
}

function first({ unit, count: most, even, rank, order }, count) { // first
  const chosen = new Uint8Array(unit.count);
  count = Math.min(count, most);
  if (!count) return chosen;
  if (!even) {
    for (let at = 0; at < count; at++) chosen[order[at]] = 1;
    return chosen;
  }
  const last = place(rank.slice(), null, count - 1);
  let left = count;
  for (let u = 0; u < unit.count; u++) if (rank[u] < last) { chosen[u] = 1; left--; }
  for (let u = 0; left > 0; u++) if (rank[u] === last) { chosen[u] = 1; left--; }
  return chosen;
}

function closest(each, budget) { // how many of these bring the sum closest to the budget
  let best = 0, spent = 0, least = Math.abs(budget);
  for (let at = 0; at < each.length; at++) {
    spent += each[at];
    if (Math.abs(spent - budget) < least) { least = Math.abs(spent - budget); best = at + 1; }
  }
  return best;
}

function lowest(unit, budget) { // _lowest
  const found = free(unit);
  return first(found, Math.max(closest(costs(found), budget), sumOf(unit.forced)));
}

function spending(unit, chosen) {
  let spent = 0;
  for (let u = 0; u < unit.count; u++) spent += chosen[u] * unit.cost[u];
  return spent;
}

function cutEachLayer(live, all, ratio) { // uniform
  const chosen = [];
  for (let s = 0; s < all.length; s += 2) {
    const sizes = [all[s].site.parameters, all[s + 1].site.parameters];
    const heads = lowest(all[s], ratio * sizes[0]);
    const rest = ratio * (sizes[0] + sizes[1]) - spending(all[s], heads);
    chosen.push(heads, lowest(all[s + 1], rest));
  }
  return chosen;
}

function cutEqualWidths(live, all, ratio) { // equal, _losses
  const layers = all.length / 2, budget = (ratio * live.parameters) / layers;
  const sites = [0, 1].map((part) => all.filter((_, s) => s % 2 === part));
  const found = sites.map((each) => each.map(free));
  const repeat = (unit, u) => (unit.site.size && unit.site.kind === "mlp" ? unit.size[u] : 1);
  const lost = found.map((each) => {
    const rows = each.map((one) => {
      const { unit, order, even } = one, parts = losses(one);
      const row = [0];
      for (let at = 0, sum = 0; at < parts.length; at++) {
        const again = even ? 1 : repeat(unit, order[at]);
        for (let r = 0; r < again; r++) row.push((sum += parts[at] / again));
      }
      return row;
    });
    const length = Math.min(...rows.map((row) => row.length)), all_ = new Float64Array(length);
    for (const row of rows) for (let at = 0; at < length; at++) all_[at] += row[at];
    return all_;
  });
  const fewest = sites.map((each) => Math.max(...each.map((unit) => sumOf(unit.forced))));
  const headCost = sites[0][0].cost.reduce((a, b) => Math.max(a, b), 0);
  const channels = [0], lead = sites[1][0];
  for (let u = 0; u < lead.count; u++)
    for (let again = repeat(lead, u); again > 0; again--)
      channels.push(channels[channels.length - 1] + lead.cost[u] / repeat(lead, u));
  channels.length = lost[1].length;
  const step = live.grouped ? live.costs.channel : lead.cost.reduce((a, b) => Math.max(a, b), 0);
  const tried = [];
  for (let heads = fewest[0]; heads < lost[0].length; heads++) {
    const rest = budget - heads * headCost;
    let low = 0, high = channels.length - 1; // the costs rise: the closest by halving
    while (low < high) { const mid = (low + high) >> 1; if (channels[mid] < rest) low = mid + 1; else high = mid; }
    if (low > 0 && Math.abs(rest - channels[low - 1]) <= Math.abs(rest - channels[low])) low--;
    const count = Math.max(low, fewest[1]);
    tried.push({ heads, count, missed: rest - channels[count] });
  }
  const least = Math.max(Math.min(...tried.map(({ missed }) => Math.abs(missed))), step);
  let best = null;
  for (const { heads, missed, count } of tried) {
    const loss = Math.abs(missed) <= least ? lost[0][heads] + lost[1][count] : Infinity;
    if (!best || loss < best.loss) best = { heads, count, loss };
  }
  return all.map((unit, s) => {
    const one = found[s % 2][s >> 1];
    if (s % 2 === 0) return first(one, best.heads);
    return first(one, one.even ? best.count : closest(Array.from(one.order, (u) => repeat(unit, u)), best.count));
  });
}

// measured, by_damage, damage.hull, damage.predicted: without curves as everywhere
function cutByDamage(live, all, ratio, shares) {
  return cutEverywhere(live, all.map((unit) => (unit.site.curve ? byDamage(live, unit, shares) : unit)), ratio);
}

function byDamage(live, unit, shares) {
  const { removed, damage } = unit.site.curve, worst = live.options.worst_domain;
  const used = damage.map((_, d) => d).filter((d) => shares[d] > 0);
  const x = [], y = []; // the corners of the lower convex hull
  removed.forEach((at, i) => {
    let value = used.reduce((sum, d) => sum + shares[d] * damage[d][i], 0);
    if (worst) value = (1 - worst) * value + worst * Math.max(...used.map((d) => damage[d][i]));
    for (let last = x.length - 1; last > 0; last--) {
      if ((y[last] - y[last - 1]) * (at - x[last - 1]) < (value - y[last - 1]) * (x[last] - x[last - 1])) break;
      x.pop(), y.pop();
    }
    x.push(at), y.push(value);
  });
  const slopes = x.slice(1).map((right, i) => (y[i + 1] - y[i]) / (right - x[i]));
  const order = argsort(unit.rank.map((rank, u) => (unit.protected[u] ? Infinity : rank)));
  const score = new Float64Array(unit.count);
  let spent = 0, before = y[0], steepest = -Infinity, piece = 0, largest = 0;
  for (const u of order) {
    spent += unit.cost[u];
    while (piece < slopes.length - 1 && spent > x[piece + 1]) piece++;
    const now = spent === x[piece + 1] ? y[piece + 1] : slopes[piece] * (spent - x[piece]) + y[piece];
    steepest = Math.max(steepest, (now - before) / unit.cost[u]);
    score[u] = steepest;
    largest = Math.max(largest, Math.abs(steepest));
    before = now;
  }
  const step = (1e-9 * (largest || 1)) / Math.max(unit.count - 1, 1);
  order.forEach((u, at) => (score[u] += at * step)); // on a straight piece, by score
  const rank = score.map((value, u) => (unit.rank[u] === unit.score[u] ? value : unit.rank[u]));
  unit.damage = score;
  return { ...unit, rank };
}

const ALLOCATIONS = {
  global: cutEverywhere,
  measured: cutByDamage,
  uniform: cutEachLayer,
  equal: cutEqualWidths,
};

// --- budget.first_mask -------------------------------------------------------------------------------------
// Shares by domain that sum to 1, and the ratio -> for every site what is kept of its entries, and the cut.
function preview(live, shares, ratio) {
  const all = live.sites.map((site) => units(live, site, shares));
  const chosen = ALLOCATIONS[live.options.allocation](live, all, ratio, shares);
  let removed = 0;
  const common = live.options.allocation === "global" || live.options.allocation === "measured";
  const sites = all.map((unit, s) => {
    const { site, score: own, cost, groups } = unit, gone = chosen[s], named = unit.rank !== own;
    const score = unit.damage ?? own; // what ranked
    const each = { site, kept: new Uint8Array(site.entries), score, cut: -Infinity, lowestKept: Infinity, share: 0 };
    if (groups) each.score = new Float64Array(site.entries);
    for (let u = 0; u < unit.count; u++) {
      if (gone[u]) {
        removed += cost[u];
        if (score[u] > each.cut && !(named && unit.rank[u] !== own[u])) each.cut = score[u];
      } else {
        each.share += unit.size[u];
        if (score[u] < each.lowestKept) each.lowestKept = score[u];
      }
      if (!groups) each.kept[u] = 1 - gone[u];
      else for (const entry of groups[u]) { each.kept[entry] = 1 - gone[u]; each.score[entry] = score[u]; }
    }
    each.share /= groups ? site.entries : site.channels;
    return each;
  });
  if (common) {
    const cut = Math.max(...sites.map((each) => each.cut)), lowestKept = Math.min(...sites.map((each) => each.lowestKept));
    for (const each of sites) { each.cut = cut; each.lowestKept = lowestKept; }
  }
  return { sites, ratio: removed / live.parameters, removed };
}
