"""Models on the Hugging Face hub: their configs and their download."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from pruning.errors import ModelError
from pruning.paths import exists
from pruning.progress import announced

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def is_hub_id(name: str) -> bool:
    """Whether a name is an id like owner/name, and no folder here."""
    return bool(_ID.fullmatch(name)) and not exists(Path(name))


def cached(name: str) -> Path | None:
    """The folder of a model that was downloaded completely; None where it was not."""
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(name, allow_patterns=_FILES, local_files_only=True))
    except Exception:  # whatever it raises says that it is not all there
        return None
    return path if list(path.glob("model*.safetensors")) else None


def download(name: str) -> Path:
    """The folder of a model, downloaded unless it is cached.

    Raises:
        ModelError: the hub cannot be reached, or has no such model.
    """
    from huggingface_hub import snapshot_download

    try:
        with announced(f"downloading {name} from the hub"):
            return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # the hub's client raises a dozen types for "not reachable" and "not there"
        raise _unreachable(name, error) from None


@lru_cache
def outline(name: str) -> tuple[Path, int]:
    """A folder with a model's config, and its number of parameters, from kilobytes of download.

    Raises:
        ModelError: the hub cannot be reached, has no such model, or has it not as safetensors.
    """
    from huggingface_hub import get_safetensors_metadata, hf_hub_download

    try:
        config = hf_hub_download(name, "config.json")
        metadata = get_safetensors_metadata(name)
    except Exception as error:
        raise _unreachable(name, error) from None
    return Path(config).parent, sum(metadata.parameter_count.values())


def _unreachable(name: str, error: Exception) -> ModelError:
    if type(error).__name__ == "NotASafetensorsRepoError":
        return ModelError(
            f"model {name!r} has no safetensors weights on the hub: name a model that has them, or give a "
            "folder with the weights converted."
        )
    if type(error).__name__ == "GatedRepoError":
        return ModelError(
            f"model {name!r} is gated on the hub: accept its conditions on its page and log in with 'hf auth "
            "login', or give a folder."
        )
    return ModelError(
        f"model {name!r} cannot be read from the hub ({type(error).__name__}): check the name and the "
        "network, or give a folder."
    )
