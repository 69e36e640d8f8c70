"""The settings of the app as one table: widgets of the sidebar, options of `RunConfig`, and defaults."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

from pruning.config import METHODS, RunConfig

AS_METHOD = "method default"  # leaves an option to the preset of the method
ROUNDINGS = (1, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Setting:
    """One option of a run, as the app sets it or takes it over.

    Attributes:
        field: the option, a field of `RunConfig`.
        key: of its widget in the sidebar, and of the query parameter in the URL; empty for options without one.
        default: value of the widget that nobody changed.
        scale: value of the widget over that of the option.
        taken: whether a new run takes the option from the displayed run. Options that are not in the table are
            taken where the method is the same, and else are those of the method's preset.
    """

    field: str
    key: str = ""
    default: Any = None
    scale: int = 1
    taken: Literal["always", "never"] = "never"

    def to_option(self, value: Any) -> Any:
        """The option for a value of the widget."""
        if isinstance(value, list):
            return tuple(value)
        return value if self.scale == 1 else value / self.scale

    def to_widget(self, config: RunConfig) -> Any:
        """The value of the widget for a config."""
        value = getattr(config, self.field)
        if self.default == AS_METHOD:
            preset = METHODS[config.method].get(self.field, RunConfig.model_fields[self.field].default)
            return AS_METHOD if value == preset else value
        if isinstance(value, tuple):
            return [*value]
        if self.field == "round_to" and value not in ROUNDINGS:
            return self.default
        return value if self.scale == 1 else round(self.scale * value)


_WIDGETS = (
    Setting("ratio", "ratio", 50, scale=100),
    Setting("method", "method", "iterative"),
    Setting("allocation", "allocation", AS_METHOD),
    Setting("compensation", "compensation", AS_METHOD),
    Setting("worst_domain", "worst", 0, scale=100),
    Setting("attention_unit", "unit", RunConfig.model_fields["attention_unit"].default),
    Setting("round_to", "round_to", 1),
    Setting("keep", "keep", []),
    Setting("remove", "remove", []),
)
WIDGETS = {setting.field: setting for setting in _WIDGETS}
SETTINGS = (
    *_WIDGETS,
    *(Setting(field, taken="always") for field in ("model", "domains", "samples", "seq_len", "seed")),
    *(Setting(field, taken="always") for field in ("device", "dtype", "eval_blocks")),
    *map(Setting, ("name", "tags", "parent", "experiment", "save_model")),
    *map(Setting, ("tasks", "task_data", "task_folder", "task_limit")),
)


def options(config: RunConfig, method: str, without: Iterable[str] = ()) -> dict[str, Any]:
    """The options that a new run takes over from the displayed run.

    Args:
        config: of the displayed run.
        method: of the new run.
        without: further fields that it does not take over.
    """
    always, never = ({each.field for each in SETTINGS if each.taken == when} for when in ("always", "never"))
    return config.model_dump(include=None if config.method == method else always, exclude=never | {*without})


def copy(config: RunConfig, widgets: MutableMapping[Any, Any]) -> None:
    """Set all widgets to the options of a config."""
    for setting in WIDGETS.values():
        widgets[setting.key] = setting.to_widget(config)


def reset(widgets: MutableMapping[Any, Any]) -> None:
    """Set all widgets to their defaults."""
    for setting in WIDGETS.values():
        widgets[setting.key] = [] if isinstance(setting.default, list) else setting.default
