"""Token ids that a base gives a meaning: what pads a row, what ends a text, and which ids it has embeddings of."""

from __future__ import annotations

from typing import Any

from fed.base.tokens.chat_template import turn_end


def pad_id(tokenizer: Any, vocabulary: int) -> int:
    """The token that fills short rows: the tokenizer's own, else its EOS (labels go by length, not by id).

    One that a tokenizer was given later may have no embedding in the model: EOS takes its place.

    Args:
        vocabulary: how many embeddings the model has.
    """
    own = tokenizer.pad_token_id
    return int(own) if own is not None and 0 <= own < vocabulary else int(tokenizer.eos_token_id)


def end_ids(model: Any, tokenizer: Any, vocabulary: int) -> frozenset[int]:
    """The tokens that end a text: EOS, the end of a turn, and all that the model's own configurations name."""
    named = [tokenizer.eos_token_id, turn_end(tokenizer)]
    text = model.config.get_text_config(decoder=True)
    for config in (model.config, text, getattr(model, "generation_config", None)):
        ids = getattr(config, "eos_token_id", None)
        named += ids if isinstance(ids, list | tuple) else [ids]
    return frozenset(int(one) for one in named if isinstance(one, int) and 0 <= one < vocabulary)


def without_embedding(tokenizer: Any, vocabulary: int) -> tuple[str, int] | None:
    """A token, and its id, that the tokenizer writes and the model has no embedding of; None where there is none.

    Special tokens are never written for a text, but for those that stand before every one and for its end.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    needed = {tokenizer.eos_token, *tokenizer.convert_ids_to_tokens(tokenizer("a")["input_ids"])}
    beyond = [
        (token, int(number))
        for token, number in tokenizer.get_vocab().items()
        if number >= vocabulary and (token not in special or token in needed)
    ]
    return min(beyond, key=lambda one: one[1]) if beyond else None
