"""Text generation: the continuation of a prompt."""

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
    """Continue a prompt up to the end of the text.

    A model's own generation settings may ask for beams or several answers; only its end of text is used.

    Args:
        loaded: model and tokenizer.
        prompt: token ids, shape (1, T).
        tokens: maximal number of new tokens; fewer are written where the context ends.
        temperature: 0 takes the likeliest token; otherwise tokens are drawn from the likeliest 95%.
        streamer: transformers' streamer, which receives each token as it is written.

    Returns:
        The ids of the new tokens.

    Raises:
        ConfigError: the prompt fills the context.
        ModelError: the model cannot take the prompt.
    """
    import torch
    from transformers import GenerationConfig

    model, tokenizer, name = loaded.model, loaded.tokenizer, quoted(loaded.name)
    length = prompt.shape[1]
    context = model.config.max_position_embeddings
    if length >= context:
        raise ConfigError(
            f"the prompt has {length:,} tokens and fills the context of {name}, {context:,}: shorten it."
        )
    end = model.generation_config.eos_token_id or tokenizer.eos_token_id
    settings = GenerationConfig(
        eos_token_id=end, pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id
    )
    sampling = {"temperature": temperature, "top_p": 0.95} if temperature > 0 else {}
    with torch.no_grad(), library_errors(ModelError, f"{name} cannot continue the prompt"):
        own, model.generation_config = model.generation_config, settings
        try:
            ids = model.generate(
                prompt.to(model.device),
                attention_mask=torch.ones_like(prompt, device=model.device),
                max_new_tokens=min(tokens, context - length),
                do_sample=temperature > 0,
                streamer=streamer,
                trust_remote_code=False,
                **sampling,
            )
        finally:
            model.generation_config = own
    return ids[0, length:].tolist()
