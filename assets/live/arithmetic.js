// What a mixture and a ratio remove: the arithmetic of pruning/method and pruning/engine/budget.py, in the browser,
// for the options that the presets of methods use. `unpack` reads what pruning/visualization/live.py packed, `preview`
// fuses, scores, normalises and cuts. Every step follows the Python function named beside it;
// tests/browser/test_live.py holds the two together.
// An item is a channel; of a model too wide for that, one channel that stands for `size` of its neighbours. A unit is
// what is removed together: as many neighbouring items as any other unit of its site.

function unpack(bytes) {
  const length = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(0, true);
  const live = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  let at = 4 + length;
  const numbers = (count) => Float64Array.from(new Float32Array(bytes.slice(at, (at += 4 * count)).buffer));
  for (const site of live.sites) {
    const n = site.items;
    site.size = live.grouped ? numbers(n) : new Float64Array(n).fill(1);
    site.weight = numbers(n);
    site.parts = site.samples.map((sample) => SCORES[live.options.score]?.part(sample, ...live.moments.map(() => numbers(n))));
    site.score = SCORES[live.options.score] ? new Float64Array(n) : site.weight;
  }
  return live;
}

// --- moments.fuse, scores.SCORES -----------------------------------------------------------------------------
// `part` is what the mixture fuses, of one domain; a score without an entry does not depend on the mixture.
const SCORES = {
  fluctuation: {
    part: ({ count }, m2) => m2.map((value) => value / Math.max(count - 1, 1)),
    score: (variance, norm) => variance * (norm * norm),
  },
  wanda_sp: {
    part: ({ count, weight }, m2, mean) => m2.map((value, i) => value / count + mean[i] ** 2 * (weight / count)),
    score: (meanSquare, meanAbs) => meanAbs * Math.sqrt(meanSquare),
  },
};

function scoreItems(live, { score, weight, parts }, shares) {
  const rule = SCORES[live.options.score]?.score;
  if (!rule) return;
  score.fill(0);
  parts.forEach((part, d) => {
    if (shares[d] > 0) for (let i = 0; i < score.length; i++) score[i] += shares[d] * part[i];
  });
  for (let i = 0; i < score.length; i++) score[i] = rule(score[i], weight[i]);
}

// --- normalise.Scale, normalise.NORMALISERS ----------------------------------------------------------------
// The k-th (from 0) of the sorted values, each as often as its weight says; Infinity beyond the last of them.
// A quickselect, which reorders both arrays.
function kth(values, weights, k) {
  let low = 0, high = values.length - 1, before = 0;
  while (low < high) {
    const a = values[low], b = values[(low + high) >> 1], c = values[high];
    const pivot = a < b ? (b < c ? b : a < c ? c : a) : a < c ? a : b < c ? c : b;
    let i = low, j = high;
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i > j) break;
      const value = values[i], weight = weights[i];
      values[i] = values[j]; weights[i++] = weights[j];
      values[j] = value; weights[j--] = weight;
    }
    let below = 0, equal = 0;
    for (let at = low; at <= j; at++) below += weights[at];
    for (let at = j + 1; at < i; at++) equal += weights[at];
    if (k < before + below) high = j;
    else if (k < before + below + equal) return pivot;
    else { before += below + equal; low = i; }
  }
  return values[low] ?? Infinity;
}

function total(values, size, most = Infinity) { // of the values, none of them counted as more than `most`
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += size[i] * (values[i] < most ? values[i] : most);
  return sum;
}

// Each gives what is subtracted and what is divided by.
const NORMALISERS = {
  soft_share: (values, size, channels) => {
    const sorted = values.slice(), sizes = size.slice(), value = (k) => kth(sorted, sizes, k);
    const half = channels >> 1, upper = value(half), median = channels % 2 ? upper : (value(half - 1) + upper) / 2;
    const at = 0.99 * (channels - 1), first = Math.floor(at), part = at - first; // as numpy interpolates
    const a = value(first), b = value(Math.min(first + 1, channels - 1));
    const clipped = total(values, size, part >= 0.5 ? b - (b - a) * (1 - part) : a + (b - a) * part) / channels;
    return [0, (channels * median * (median / (clipped || 1)) || total(values, size) || 1) ** 0.75];
  },
  zscore: (values, size, channels) => {
    const mean = total(values, size) / channels;
    const squares = total(values.map((value) => (value - mean) ** 2), size);
    return [mean, Math.sqrt(squares / (channels - 1)) || 1];
  },
};

// --- units.site_units, units._highest ------------------------------------------------------------------------
// The units of a site with their score, cost and width in channels. First in rank are those that a person removed,
// last those that stay, by a person's choice or for the floor.
function siteUnits(live, site, shares) {
  const { size, channels, units } = site, { options } = live, each = site.items / units;
  scoreItems(live, site, shares);
  const values = site.square ? site.score.map((value) => value * value) : site.score;
  const [shift, scale] = NORMALISERS[options.normalise](values, size, channels);
  const [score, cost, width] = [0, 1, 2].map(() => new Float64Array(units));
  for (let u = 0, i = 0; u < units; u++) {
    let sum = 0;
    for (const end = i + each; i < end; i++) { sum += size[i] * ((values[i] - shift) / scale); width[u] += size[i]; }
    cost[u] = (site.parameters * width[u]) / channels;
    score[u] = options.unit_score === "mean" ? sum / width[u] : (sum * live.channel_cost) / cost[u];
  }
  const order = score.slice();
  for (const u of site.keep) order[u] = Infinity;
  for (const u of site.remove) order[u] = -Infinity;
  const rank = order.slice(), least = kth(order.slice(), width.slice(), Math.max(channels - site.floor, 0));
  let missing = site.floor;
  for (let u = 0; u < units; u++) if (order[u] > least) { rank[u] = Infinity; missing -= width[u]; }
  for (let u = units - 1; u >= 0 && missing > 0; u--) if (order[u] === least) { rank[u] = Infinity; missing -= width[u]; }
  return { site, score, rank, cost, width };
}

// --- allocation.ALLOCATIONS: for every unit of every site, 1 for what goes -------------------------------------
// allocation._nearest, allocation._lowest: the lowest units whose cost together is nearest to a budget; `more` says
// which of two numbers that are equally near.
function lowest(rank, cost, budget, more) {
  const removed = new Uint8Array(rank.length), last = kth(rank.slice(), cost.slice(), budget);
  let spent = 0;
  for (let u = 0; u < rank.length; u++) if (rank[u] < last) { removed[u] = 1; spent += cost[u]; }
  for (let u = 0; u < rank.length && last < Infinity; u++) {
    if (rank[u] !== last) continue;
    const over = spent + cost[u] - budget, under = budget - spent;
    if (last > -Infinity && (under <= 0 || (more ? over > under : over >= under))) break;
    removed[u] = 1;
    spent += cost[u];
  }
  return { removed, spent };
}

const ALLOCATIONS = {
  global: (live, all, ratio) => {
    const joined = (name) => {
      const array = new Float64Array(all.reduce((sum, unit) => sum + unit.rank.length, 0));
      let start = 0;
      for (const unit of all) { array.set(unit[name], start); start += unit.rank.length; }
      return array;
    };
    const { removed } = lowest(joined("rank"), joined("cost"), ratio * live.parameters, true);
    let start = 0;
    return all.map(({ rank }) => removed.subarray(start, (start += rank.length)));
  },
  uniform: (live, all, ratio) => {
    const share = ratio / live.prunable_share;
    let parameters = 0, gone = 0; // of the layer so far: its last site makes up for what the others' units cannot meet
    return all.map(({ site, rank, cost }, s) => {
      parameters += site.parameters;
      const isLast = all[s + 1]?.site.layer !== site.layer;
      const { removed, spent } = lowest(rank, cost, isLast ? share * parameters - gone : share * site.parameters, false);
      [parameters, gone] = isLast ? [0, 0] : [parameters, gone + spent];
      return removed;
    });
  },
};

// --- budget.first_mask -------------------------------------------------------------------------------------
// Shares by domain that sum to 1, and the ratio -> for every site what is kept of its units, and the cut.
function preview(live, shares, ratio) {
  const all = live.sites.map((site) => siteUnits(live, site, shares));
  const goes = ALLOCATIONS[live.options.allocation](live, all, ratio);
  let removed = 0;
  const sites = all.map(({ site, score, rank, cost, width }, s) => {
    const each = { site, score, width, kept: goes[s].map((gone) => 1 - gone), share: 0, below: -Infinity, above: Infinity };
    for (let u = 0; u < score.length; u++) {
      if (each.kept[u]) { each.share += width[u] / site.channels; each.above = Math.min(each.above, score[u]); }
      else { removed += cost[u]; if (rank[u] > -Infinity) each.below = Math.max(each.below, score[u]); }
    }
    return each;
  });
  const ranked = live.options.allocation === "global" ? [sites] : sites.map((each) => [each]); // what has a cut in common
  for (const group of ranked) {
    const below = Math.max(...group.map((each) => each.below)), above = Math.min(...group.map((each) => each.above));
    for (const each of group) each.cut = below === -Infinity ? above : below;
  }
  return { sites, ratio: removed / live.parameters };
}
