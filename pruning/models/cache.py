"""Files of computed values, by a key. The key consists of:

- the kind of value, and its options that change it;
- the state of the model: `Delta.digest`, which names its config, every number of its weights, and the cut;
- what was put in, as token ids and their division into blocks or requests. They hold what text, tokenizer,
  chat template, task data, prompt template, seed and date made of each other, so none of these has a key;
- what computes: the dtype, the type of device, and `versions`.

A value without a file of its key is computed again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pruning.paths import cache_folder
from pruning.versions import versions

if TYPE_CHECKING:
    from pruning.models.family import CausalLM
    from pruning.models.source import LayerSource


def cache_file(
    kind: str, model: CausalLM | LayerSource, state: str, *inputs: object, suffix: str = ".json"
) -> Path:
    """The file of a value in the cache.

    Args:
        kind: the kind of value, which names its folder.
        model: the model that computes the value; its dtype and device are part of the key.
        state: a name for the model's weights and what was cut from them.
        inputs: digests of the token ids, and options; plain values.
        suffix: the suffix of the file's name.
    """
    key = json.dumps([versions(), state, str(model.dtype), model.device.type, *inputs], sort_keys=True)
    return cache_folder() / kind / f"{hashlib.blake2b(key.encode(), digest_size=16).hexdigest()}{suffix}"
