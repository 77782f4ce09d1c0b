"""Texts to rows of tokens as the model sees them: a prompt and its completion are one text, tokenized once.

    tokens(prompt ⊕ completion)  =  BOS, where the tokenizer adds one · the prompt's · seam · the completion's · END

Tokenized apart, a completion would begin as a text does: with a stray "▁", or with a merge that the whole text has
not. The seam is found by the tokens' offsets; a token that lies across it holds words of the completion and belongs to
it, and the row then keeps what its prompt is alone, which an answer is asked by. Where a tokenizer gives no offsets,
the seam is where the tokens of the prompt alone end to agree with those of the whole.

What a user wrote never ends a text: the written form of a control token is ordinary text, and END stands at a
completion's end alone. A row that is too long loses the start of its prompt, never BOS, so that `f1` and `all-f1` mean
one position in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from fed.base.tokens.chat_template import ChatTemplate

UNCUT = 1 << 30  # tokens: a max-length that cuts nothing


class Worded(NamedTuple):
    """A prompt and its completion as the text that they are together.

    Attributes:
        prompt: up to where the answer begins.
        completion: the answer, with whatever stands between it and the prompt.
        head: how many characters at the prompt's start no cut takes.
        tail: how many at its end, likewise.
        end: the token that ends the completion; None: the tokenizer's EOS.
        control: whether control tokens stand written in the text, as a chat template writes them, BOS among them.
    """

    prompt: str
    completion: str
    head: int = 0
    tail: int = 0
    end: int | None = None
    control: bool = False


class _Tokens(NamedTuple):
    """A text's tokens without those that a tokenizer puts after it.

    Attributes:
        ids: those it puts before the text, then the text's.
        ends: per token, where it ends in the text; 0 for those before it.
        starts: where it begins.
        before: how many stand before the text.
    """

    ids: list[int]
    starts: list[int]
    ends: list[int]
    before: int


def as_tokens(
    text: Worded, tokenizer: Any, max_length: int, answer_room: int = 0
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A text's tokens, at most `max_length`: those of its prompt, of its completion, and the prompt's where they differ
    without a completion behind it.

    Args:
        answer_room: tokens that shall fit behind the prompt, whatever the completion takes.
    Raises:
        ValueError: what must stay of the prompt leaves no room for a completion.
    """
    end = tokenizer.eos_token_id if text.end is None else text.end
    seam = len(text.prompt)
    whole = _encode(text.prompt + text.completion, tokenizer, text, seam)
    count = next((i for i, place in enumerate(whole.ends) if i >= whole.before and place > seam), len(whole.ids))
    # What stays of the prompt however long the row is
    head = sum(place <= text.head for place in whole.ends[:count]) if text.head else 0
    head = max(head, whole.before)
    tail = max(1, sum(place >= seam - text.tail for place in whole.starts[:count])) if text.tail else 1
    room = max_length - head - tail
    if room < 1:
        raise ValueError(
            f"max-length must leave room for an answer behind the {head + tail} tokens that every prompt of this base "
            f"has, got {max_length}; raise max-length to {head + tail + 16} or more"
        )
    completion = tuple([*whole.ids[count:], end][:room])
    kept = max_length - max(len(completion), min(answer_room, room)) - head
    asked: tuple[int, ...] = ()
    if count < len(whole.ids) and whole.starts[count] < seam:
        alone = _encode(text.prompt, tokenizer, text, seam)
        asked = (*alone.ids[:head], *alone.ids[head:][-kept:])
    return (*whole.ids[:head], *whole.ids[head:count][-kept:]), completion, asked


def worded(pair: Sequence[str], tokenizer: Any, prompt_format: str) -> Worded:
    """The pair as one text in this format.

    In a chat the text about the user has the system's role, where the template has one; the prompt's other words are
    the user's turn, and the completion the assistant's.
    """
    prompt, completion = pair[0], pair[1]
    if prompt_format == "plain":
        return Worded(prompt, completion)
    template = ChatTemplate.of(tokenizer)
    about = getattr(pair, "about", "") if template.system is not None else ""
    before = template.before(about)
    return Worded(
        f"{before}{template.said(prompt.removeprefix(about))}{template.tail}",
        f"{template.lead}{template.said(completion)}",
        head=len(before),
        tail=len(template.tail),
        end=template.end,
        control=True,
    )


def around(tokenizer: Any, prompt_format: str) -> int:
    """How many tokens a format puts around a prompt's own."""
    if prompt_format == "plain":
        return 0
    template = ChatTemplate.of(tokenizer)
    texts = (template.head, template.tail, "".join(template.system or ()))
    head, tail, system = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    return max(head, system) + tail


def before_text(tokenizer: Any) -> tuple[int, ...]:
    """The tokens that the tokenizer puts before every text: BOS, or nothing."""
    tokens = _encode("a", tokenizer, Worded("a", ""), 1)
    return tuple(tokens.ids[: tokens.before])


def _encode(text: str, tokenizer: Any, given: Worded, seam: int) -> _Tokens:
    """The text's tokens, less any end of a text among them where none is written on purpose."""
    if not text:
        ids = list(before_text(tokenizer)) if not given.control else []
        return _Tokens(ids, [0] * len(ids), [0] * len(ids), len(ids))
    if getattr(tokenizer, "is_fast", False):
        coded = tokenizer(
            text,
            add_special_tokens=not given.control,
            split_special_tokens=not given.control,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        ids, added = coded["input_ids"], coded["special_tokens_mask"]
        starts, ends = (list(side) for side in zip(*coded["offset_mapping"], strict=True)) if ids else ([], [])
        before = next((i for i, one in enumerate(added) if not one), len(ids))
        after = next((i for i, one in enumerate(reversed(added)) if not one), 0)
    else:
        ids, starts, ends, before, after = _without_offsets(text, tokenizer, given, seam)
    inner = range(before, len(ids) - after)
    end = tokenizer.eos_token_id  # once: looked up for every token, it takes longer than all the rest
    keep = [*range(before), *(i for i in inner if given.control or ids[i] != end)]
    return _Tokens([ids[i] for i in keep], [starts[i] for i in keep], [ends[i] for i in keep], before)


def _without_offsets(
    text: str, tokenizer: Any, given: Worded, seam: int
) -> tuple[list[int], list[int], list[int], int, int]:
    """(ids, starts, ends, before, after) of a tokenizer without offsets: a token lies before the seam, or behind it."""
    ids = tokenizer(text, add_special_tokens=not given.control)["input_ids"]
    bare = tokenizer(text, add_special_tokens=False)["input_ids"]
    before = next((i for i in range(len(ids) - len(bare) + 1) if ids[i : i + len(bare)] == bare), 0)
    alone = tokenizer(text[:seam], add_special_tokens=False)["input_ids"]
    agreed = next((i for i, (one, other) in enumerate(zip(alone, bare, strict=False)) if one != other), None)
    count = min(len(alone), len(bare)) if agreed is None else agreed
    places = [0] * before + [seam] * count + [len(text)] * (len(ids) - before - count)
    begins = [0] * (before + count) + [seam if agreed is None else seam - 1] * (len(ids) - before - count)
    return ids, begins, places, before, len(ids) - before - len(bare)
