"""Text of data sets on the Hugging Face hub, streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pruning.errors import DomainError
from pruning.text.columns import Documents, choose, column_names
from pruning.text.files import Unreadable

Split = Literal["calibration", "heldout"]
# id, configuration, columns, split for calibration, split for held-out text
PRESETS: dict[str, tuple[str, str | None, str | None, str, str]] = {
    "wikitext": ("Salesforce/wikitext", "wikitext-2-raw-v1", "text", "train", "test"),
    "c4": ("allenai/c4", "en", "text", "train", "validation"),
    "code": ("codeparrot/codeparrot-clean-valid", None, "content", "train", "train"),
    "gsm8k": ("openai/gsm8k", "main", "question+answer", "train", "test"),
    "openwebmath": ("open-web-math/open-web-math", None, "text", "train", "train"),
}


@dataclass(frozen=True)
class Asked:
    """What a name after `hub:` means: a preset, or `ID[:CONFIG[:COLUMN]]`."""

    repo: str
    configuration: str | None
    column: str | None
    calibration: str
    heldout: str

    @classmethod
    def parse(cls, what: str) -> Asked:
        """The data set that a name means."""
        if what in PRESETS:
            return cls(*PRESETS[what])
        repo, _, rest = what.partition(":")
        configuration, _, column = rest.partition(":")
        return cls(repo, configuration or None, column or None, "train", "test")


def read(
    name: str, what: str, split: Split, seed: int, tokenizer: Any
) -> tuple[Documents, dict[str, Any], bool]:
    """Documents of a data set, where they came from, and whether it has a split of its own for them.

    Raises:
        DomainError: it cannot be reached, or does not hold what is asked for.
    """
    from datasets import load_dataset
    from huggingface_hub import HfApi

    asked = Asked.parse(what)
    part = getattr(asked, split)
    documents = Documents()
    try:
        revision = HfApi().dataset_info(asked.repo).sha
        stream = load_dataset(
            asked.repo,
            asked.configuration,
            split=part,
            streaming=True,
            revision=revision,
            trust_remote_code=False,
        )
        form: tuple[str, ...] = ()
        for row in stream.shuffle(seed=seed, buffer_size=1000):
            form = form or choose(column_names([row]), asked.column, "hub:ID:CONFIG")
            documents.add_rows([row], form, tokenizer)
            if documents.limit:
                break
        if not documents.texts:
            raise Unreadable(f"has no text in {'+'.join(form) or 'its rows'}: write hub:ID:CONFIG:COLUMN")
    except Unreadable as problem:
        raise DomainError(f"domain {name!r}: data set {asked.repo!r} {problem}.") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        # no such configuration or split, a data set that is a script
        said = f"{asked.configuration or 'default'}, split {part}"
        reason = str(error).strip().splitlines()[0].rstrip(".")[:200] if str(error) else type(error).__name__
        raise DomainError(
            f"domain {name!r}: data set {asked.repo!r} cannot be read as configuration {said} ({reason}): "
            f"name a configuration with that split (hub:ID:CONFIG:COLUMN), or give a file."
        ) from None
    except Exception as error:  # the hub's client raises a dozen types for "not reachable" and "not there"
        raise DomainError(
            f"domain {name!r}: data set {asked.repo!r} cannot be read from the hub "
            f"({type(error).__name__}): check the name and the network, or use the embedded text or a file."
        ) from None
    source: dict[str, Any] = {"kind": "hub", "name": asked.repo, "config": asked.configuration}
    source |= {"column": asked.column, "split": part, "revision": revision, "seed": seed}
    return documents, source, asked.calibration != asked.heldout
