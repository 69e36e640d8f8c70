"""Options of a run in words, and in which of them two runs differ."""

from __future__ import annotations

from pruning.config import RunConfig


def option(config: RunConfig, name: str) -> str:
    """The value of an option in words."""
    value = getattr(config, name)
    if name == "eval_blocks" and value is None:
        return "all"
    if isinstance(value, dict):
        parts = (f"{key} {item:.0%}" if isinstance(item, float) else key for key, item in value.items())
        return " ".join(parts) or "none"
    if isinstance(value, tuple):
        return " ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.0%}" if name == "ratio" else "none" if value is None else str(value)


def option_title(name: str) -> str:
    """The name of an option in words, as forms and the command line have it."""
    return "calibration blocks" if name == "samples" else name.replace("_", " ")


def changes(before: RunConfig, after: RunConfig, without: tuple[str, ...] = ()) -> str:
    """The options that differ between two configs, without those set by a changed method's preset.

    Args:
        before: the config compared with.
        after: the config whose values are given.
        without: options to leave out.
    """
    differences = [f"method {after.method}"] if before.method != after.method else []
    preset = RunConfig.create(method=after.method)
    for name in RunConfig.model_fields:
        old, new = getattr(before, name), getattr(after, name)
        brought = before.method != after.method and new == getattr(preset, name)
        if old == new or brought or name in ("method", "parent", "experiment", "name", "tags", *without):
            continue
        differences.append(f"{option_title(name)} {option(after, name)}")
    return ", ".join(differences) or "no option changed"
