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
from pruning.engine.budget import floor, scores
from pruning.method.units import select
from pruning.models.geometry import Geometry, Site
from pruning.paths import ASSETS
from pruning.runs.folder import StoredIteration
from pruning.visualization.cut import colour_reach
from pruning.visualization.style import COLOURS, DIVERGING, MAX_BINS, Array, site_names, site_style

MAX_ITEMS = 65_536  # channels packed one by one; four domains of these are 1.3 MB
OF_A_HEAD, OF_A_COLUMN = 8, 3  # channels that stand for a head, or for a column of single channels
GOLDEN = 0.6180339887498949


def source(name: str) -> str:
    """A file of `assets/live`."""
    return (ASSETS / "live" / name).read_text(encoding="utf-8")


HTML, CSS = source("live.html"), source("live.css")
SCRIPT = source("arithmetic.js") + source("canvas.js")
COMPONENT = SCRIPT + source("component.js")

# What assets/live/arithmetic.js computes: the options of the methods' presets.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    "score": ("fluctuation", "wanda_sp", "magnitude", "random"),
    "normalise": ("soft_share", "zscore"),
    "attention_weight": (1,),
    "allocation": ("global", "uniform"),
    "fusion": ("within",),
    "worst_domain": (0,),
    "attention_unit": ("kv_group",),
    "round_to": (1,),
}
# Arrays of each domain that the mixture fuses; other scores do not depend on the mixture.
MOMENTS = {"fluctuation": ("m2",), "wanda_sp": ("m2", "mean")}
OPTIONS = ("score", "normalise", "unit_score", "allocation")


@dataclass(frozen=True)
class Live:
    """Packed statistics of one iteration.

    Attributes:
        header: what does not depend on mixture, ratio and pins.
        body: the arrays, float32.
        entries: by site the entries of a mask that are in it, all of them or those that stand for others.
    """

    header: dict[str, Any]
    body: bytes
    entries: Mapping[Site, Array]


def unsupported(config: RunConfig) -> str | None:
    """What of a config the browser cannot compute, in words; None where it computes all."""
    for name, values in SUPPORTED.items():
        if (value := getattr(config, name)) not in values:
            return f"{name.replace('_', ' ')} {value}"
    return None


def live_data(it: StoredIteration, config: RunConfig, domains: Sequence[str] = ()) -> Live:
    """Statistics of an iteration for the browser.

    Args:
        it: the first, whose statistics are the dense model's.
        config: score and seed; the others of its options do not matter here.
        domains: in the order in which they are shown; those of the statistics when left out.
    """
    geometry, domains = it.geometry, domains or list(it.statistics.moments)
    grouped = sum(geometry.channels(site) for site in geometry.sites) > MAX_ITEMS
    columns = min(MAX_BINS, max(MAX_ITEMS // 4 // len(geometry.layers), 16)) if grouped else MAX_BINS
    score, given = config.score, {}
    if score not in MOMENTS:
        given = scores(it.statistics, it.norms, config)
    entries, sites, parts = {}, [], []
    for site in geometry.sites:
        shape = geometry.shape(site)
        chosen = np.arange(shape.channels)
        if grouped:
            parts_of = (shape.entries, OF_A_HEAD) if shape.has_heads else (columns, OF_A_COLUMN)
            chosen, sizes = representatives(it.scores[site], *parts_of)
            parts.append(sizes)
        norms = it.norms[site]
        weight = {"fluctuation": norms.norm, "wanda_sp": norms.mean_abs}.get(score)
        parts.append((given[site] if weight is None else weight)[chosen])
        moments = [it.statistics.moments[name][site] for name in domains]
        parts += [getattr(part, name)[chosen] for part in moments for name in MOMENTS.get(score, ())]
        entries[site] = np.arange(shape.entries) if shape.has_heads else chosen
        units = shape.groups if shape.has_heads else len(chosen)
        sites.append(
            {
                "layer": site.layer,
                "name": site.name,
                "channels": shape.channels,
                "entries": shape.entries,
                "units": units,
                "columns": min(columns, units),
                "items": len(chosen),
                "parameters": shape.parameters,
                "samples": [{"count": part.count, "weight": part.total} for part in moments],
            }
        )
    header = {
        "domains": list(domains),
        "moments": MOMENTS.get(score, ()),
        "grouped": grouped,
        "parameters": geometry.linear_parameters,
        "prunable_share": geometry.prunable_share,
        "channel_cost": geometry.least_cost,
        "sites": sites,
        "modules": [{"name": name, **site_style(name)._asdict()} for name in site_names(geometry)],
        "colours": {"scale": DIVERGING, "domains": COLOURS},
    }
    body = np.concatenate(parts).astype("<f4").tobytes()
    return Live({**header, "id": zlib.crc32(body)}, body, entries)


def representatives(score: Array, columns: int, each: int) -> tuple[Array, Array]:
    """Channels that stand for all of a site: of every column its highest, and one of each part of the others.

    The others of a column, sorted by score, are divided into `each` - 1 parts. Which position of a part is
    taken changes from column to column (multiples of the golden ratio), so that those of a layer follow its
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
    offset = (np.arange(sizes.size) * GOLDEN % 1).reshape(sizes.shape)
    return order[bounds[:, :-1] + (offset * sizes).astype(int)].ravel(), sizes.ravel()


def pack(live: Live, config: RunConfig, geometry: Geometry, **view: Any) -> bytes:
    """Statistics, and what is decided about them, as one message for the browser.

    Args:
        live: of an iteration.
        config: whose preview the browser opens with.
        geometry: of the dense model.
        view: for the drawing: `held` (by domain whether its share is locked) and `plain_sliders` (whether
            other sliders for keyboard and screen readers stand beside the canvas).

    Raises:
        ConfigError: what is to be kept or removed cannot be read.
    """
    pins = {"keep": select(geometry, config.keep), "remove": select(geometry, config.remove)}
    sites = []
    for site, packed in zip(geometry.sites, live.header["sites"], strict=True):
        entries = {name: pinned[site][live.entries[site]] for name, pinned in pins.items()}
        units = {name: each.reshape(packed["units"], -1).any(axis=1) for name, each in entries.items()}
        sites.append(
            {
                **packed,
                **{name: np.flatnonzero(each).tolist() for name, each in units.items()},
                "floor": floor(site, geometry, config) * packed["channels"] // packed["entries"],
                "square": config.square_attention and site.name == "attn",
            }
        )
    domains = live.header["domains"]
    header = {
        **live.header,
        "sites": sites,
        "options": {name: getattr(config, name) for name in OPTIONS},
        "reach": colour_reach(config)._asdict(),
        "shares": [config.mixture.get(name, 0.0) for name in domains],
        "ratio": config.ratio,
        "held": [False] * len(domains),
        "plain_sliders": False,
        **view,
    }
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + live.body
