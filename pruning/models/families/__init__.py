"""The families of models: one file each. What a file calls `FAMILY` is supported, by its model type."""

from importlib import import_module
from pkgutil import iter_modules

from pruning.errors import ModelError
from pruning.models.family import Family
from pruning.registry import Registry

FAMILIES: Registry[Family] = Registry("family")
for _module in iter_modules(__path__):
    _family: Family = import_module(f"{__name__}.{_module.name}").FAMILY
    FAMILIES.add(_family, _family.model_type)


def supported(model_type: object) -> Family:
    """The family of a model type.

    Raises:
        ModelError: it is not supported.
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ModelError(
            f"models of type {str(model_type)[:60]!r} are not supported: supported are {', '.join(FAMILIES)}."
        )
    return FAMILIES[model_type]
