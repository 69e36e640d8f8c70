"""What a model writes behind a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pruning.errors import ConfigError, ModelError, library_errors
from pruning.formatting import quoted

if TYPE_CHECKING:
    from torch import Tensor

    from pruning.models.folder import LoadedModel


def continue_prompt(
    loaded: LoadedModel,
    prompt: Tensor,
    tokens: int,
    temperature: float = 0.0,
    streamer: Any = None,
) -> list[int]:
    """The tokens that a model writes behind a prompt, up to the end of its text.

    A model's own generation settings may ask for several beams or answers; only its end of a text is used.

    Args:
        loaded: model and tokenizer.
        prompt: token ids, shape (1, T).
        tokens: at most so many are written, fewer where the context ends.
        temperature: 0 takes the likeliest token; others are drawn from the likeliest 95%.
        streamer: of transformers, is given the tokens as they are written.

    Raises:
        ConfigError: the prompt fills the context.
        ModelError: the model cannot take the prompt.
    """
    import torch
    from transformers import GenerationConfig

    model, tokenizer, name = loaded.model, loaded.tokenizer, quoted(loaded.name)
    length = prompt.shape[1]
    room = model.config.max_position_embeddings - length
    if room < 1:
        raise ConfigError(
            f"the prompt has {length:,} tokens and fills the context of {name}, "
            f"{model.config.max_position_embeddings:,}: shorten it."
        )
    end = model.generation_config.eos_token_id or tokenizer.eos_token_id
    settings = GenerationConfig(
        eos_token_id=end, pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id
    )
    sampling = {"temperature": temperature, "top_p": 0.95} if temperature > 0 else {}
    with torch.no_grad(), library_errors(ModelError, f"{name} cannot continue the prompt"):
        own, model.generation_config = model.generation_config, settings
        try:
            written = model.generate(
                prompt.to(model.device),
                attention_mask=torch.ones_like(prompt, device=model.device),
                max_new_tokens=min(tokens, room),
                do_sample=temperature > 0,
                streamer=streamer,
                trust_remote_code=False,
                **sampling,
            )
        finally:
            model.generation_config = own
    return written[0, length:].tolist()
