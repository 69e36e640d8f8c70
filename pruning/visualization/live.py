"""Statistics of the dense model for the browser, where `assets/live` scores and cuts them during a drag.

`pack` writes what `unpack` in arithmetic.js reads: the length of a JSON object as uint32, that object, and
arrays of float32, all little-endian. Models of up to `MAX_ITEMS` channels are packed whole, and their preview
is that of `engine.budget.first_mask`. Of wider ones a few channels of each column stand for their neighbours.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pruning.config import RunConfig
from pruning.engine.budget import floor
from pruning.method.scores import SCORES
from pruning.method.sensitivity import Curve
from pruning.method.statistics import SiteStats
from pruning.method.units import select
from pruning.models.geometry import KINDS, Geometry, Site, SiteShape
from pruning.paths import ASSETS
from pruning.runs.folder import StoredIteration
from pruning.visualization.style import MAX_BINS, Array

MAX_ITEMS = 65_536  # channels packed one by one; four domains of these are 1.3 MB
OF_A_COLUMN = {"attn": 8, "mlp": 3}  # channels that stand for a head, or for a column of the MLP
GOLDEN = 0.6180339887498949


def source(name: str) -> str:
    """A file of `assets/live`."""
    return (ASSETS / "live" / name).read_text(encoding="utf-8")


HTML, CSS = source("live.html"), source("live.css")
SCRIPT = source("arithmetic.js") + source("canvas.js")
COMPONENT = SCRIPT + source("component.js")

# What assets/live/arithmetic.js computes, with the arrays that each score needs.
ARRAYS = {
    "fluctuation": ("norm", "m2"),
    "wanda_sp": ("mean_abs", "m2", "mean", "mean_square"),
    "magnitude": ("norm",),
    "input_variance": ("m2",),
    "random": ("given",),
}
NORMALISERS = ("soft_share", "robust_share", "share", "zscore", "zscore_zero", "zscore_first", "none")
ALLOCATIONS = ("global", "measured", "uniform", "equal")
OPTIONS = (
    *("score", "fusion", "worst_domain", "square_attention", "normalise", "unit_score", "allocation"),
    *("attention_unit", "round_to"),
)


@dataclass(frozen=True)
class Live:
    """Packed statistics of one iteration.

    Attributes:
        header: what does not depend on mixture, ratio and pins.
        body: the arrays, float32.
        items: by site the channels that are in it, all of them or those that stand for others.
    """

    header: dict[str, Any]
    body: bytes
    items: Mapping[Site, Array]


def unsupported(config: RunConfig) -> str | None:
    """What of a config the browser cannot compute, in words; None where it computes all."""
    for name, known in (("score", ARRAYS), ("normalise", NORMALISERS), ("allocation", ALLOCATIONS)):
        if (value := getattr(config, name)) not in known:
            return f"{name} {value!r}"
    return None


def arrays_of(config: RunConfig) -> tuple[str, ...]:
    """Names of the arrays that a config's preview needs."""
    names = ARRAYS[config.score]
    if config.fusion == "total" and "m2" in names and "mean" not in names:
        names = (*names, "mean")
    return names


def live_data(it: StoredIteration, arrays: Sequence[str], seed: int = 0, domains: Sequence[str] = ()) -> Live:
    """Statistics of an iteration for the browser.

    Args:
        it: the first, whose statistics are the dense model's.
        arrays: names as of `arrays_of`.
        seed: of the random score.
        domains: in the order in which they are shown; those of the statistics when left out.
    """
    geometry, domains = it.geometry, domains or list(it.statistics.moments)
    grouped = sum(geometry.channels(site) for site in geometry.sites) > MAX_ITEMS
    columns = min(MAX_BINS, max(MAX_ITEMS // 4 // len(geometry.layers), 16))
    items, sites, parts = {}, [], []
    for site in geometry.sites:
        shape, width = geometry.shape(site), geometry.channels(site)
        norm, mean_abs = it.norms[site]
        moments = [it.statistics.moments[name][site] for name in domains]
        chosen, sizes = np.arange(width), np.ones(width, int)
        if grouped:
            count = shape.entries if shape.has_heads else columns
            chosen, sizes = representatives(it.scores[site], count, OF_A_COLUMN[site.name])
            parts.append(sizes)
        items[site] = chosen
        known = {"norm": norm, "mean_abs": mean_abs}
        if "given" in arrays:
            drawn = (seed, site.layer, KINDS.index(site.name))
            known["given"] = SCORES["random"](SiteStats(0, norm, norm, norm, norm, mean_abs, drawn))
        parts += [known[name][chosen] for name in ("norm", "mean_abs", "given") if name in arrays]
        for part in moments:
            parts += [getattr(part, name)[chosen] for name in ("m2", "mean") if name in arrays]
        curve = it.curves.get(site)
        sites.append(
            {
                "layer": site.layer,
                "kind": site.name,
                "channels": width,
                "items": len(chosen),
                "columns": min(columns, width),
                "heads": shape.entries,
                "group": shape.group,
                "parameters": geometry.parameters(site),
                "curve": curve and _curve(curve, domains),
                "samples": [{"count": part.count, "weight": part.total} for part in moments],
            }
        )
    attn = next((s for s in map(geometry.shape, geometry.sites) if s.has_heads), SiteShape(1))
    header = {
        "domains": list(domains),
        "arrays": list(arrays),
        "grouped": grouped,
        "columns": MAX_BINS,
        "parameters": geometry.linear_parameters,
        "costs": {
            "head": attn.entry_cost,
            "kv_head": attn.group_cost,
            "channel": geometry.least_cost,
            "head_dim": attn.width,
        },
        "sites": sites,
    }
    body = np.concatenate(parts).astype("<f4").tobytes()
    return Live({**header, "id": zlib.crc32(body)}, body, items)


def _curve(curve: Curve, domains: Sequence[str]) -> dict[str, Any]:
    damage = [curve.divergence.get(name, np.zeros(len(curve.removed))).tolist() for name in domains]
    return {"removed": curve.removed.tolist(), "damage": damage}


def representatives(score: Array, columns: int, each: int) -> tuple[Array, Array]:
    """Channels that stand for all of a site: of every column its highest, and one of each part of the rest.

    The rest of a column, sorted by score, is divided into `each` - 1 parts. Which place of a part is taken
    changes from column to column (multiples of the golden ratio), so that those of a layer follow its
    distribution.

    Args:
        score: (C,)
        columns: of neighbouring channels.
        each: channels that stand for a column.

    Returns:
        (n,) their indices, column by column, and (n,) for how many each stands.
    """
    columns = min(columns, len(score))
    edges = np.linspace(0, len(score), columns + 1).astype(int)
    widths = np.diff(edges)
    each = min(each, int(widths.min()))
    order = np.lexsort((-score, np.repeat(np.arange(columns), widths)))  # the highest of each column first
    parts = np.linspace(0, 1, each)[None] * (widths - 1)[:, None] if each > 1 else widths[:, None] - 1
    bounds = edges[:-1, None] + np.concatenate([np.zeros((columns, 1), int), 1 + parts.astype(int)], axis=1)
    sizes = np.diff(bounds)  # (columns, each)
    place = (np.arange(sizes.size) * GOLDEN % 1).reshape(sizes.shape)
    return order[bounds[:, :-1] + (place * sizes).astype(int)].ravel(), sizes.ravel()


def pack(live: Live, config: RunConfig, geometry: Geometry, **view: Any) -> bytes:
    """Statistics, and what is decided about them, as one message for the browser.

    Args:
        live: of an iteration.
        config: whose preview the browser opens with.
        geometry: of the dense model.
        view: for the drawing: `held` (by domain whether its share is locked) and `plain_sliders` (whether
            other sliders for keyboard and screen readers stand beside the canvas).
    """
    keep, remove = select(geometry, config.keep), select(geometry, config.remove)
    sites = []
    for site, known in zip(geometry.sites, live.header["sites"], strict=True):
        entries = live.items[site] if site.name == "mlp" else np.arange(known["heads"])
        pins = {
            name: np.flatnonzero(pinned[site][entries]).tolist()
            for name, pinned in (("keep", keep), ("remove", remove))
        }
        sites.append({**known, "floor": floor(site, geometry, config), **pins})
    domains = live.header["domains"]
    header = {
        **live.header,
        "sites": sites,
        "options": {name: getattr(config, name) for name in OPTIONS},
        "shares": [config.mixture.get(name, 0.0) for name in domains],
        "ratio": config.ratio,
        "held": [False] * len(domains),
        "plain_sliders": False,
        **view,
    }
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + live.body
