"""Which token positions an edit touches, right under left and right padding.

    all      every token, generated ones too          last     the prompt's last token
    prompt   every token of the prompt                f3+l3    the prompt's first 3 and last 3 (also f3, l3)
    answer   the prompt's last token and the completion's: all that an answer's tokens are read off
    all-f1   every token but the prompt's first (also all-fN, prompt-fN)

Promise: `last`, `answer` and `lM` leave out the prompt's first token however short the prompt is, unless fN or all asks
for it (`test_the_last_tokens_never_hold_the_first_one`). LaMP_7's bare rows have two tokens, `tweet:`, and `l2` edits
the second alone. Prompts of more than M tokens are edited as they were before this rule.

The names for the first and last positions follow LoReFT (Wu et al. 2024, section 4.1). Why leave out a first token: it
is where a decoder puts attention that should go nowhere (Xiao et al. 2024, attention sinks), with hidden states far
larger than the others' in the later half of the blocks (Sun et al. 2024, massive activations). An edit there is as much
larger, and disturbs every later token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from torch import Tensor

_BUT_FIRST = re.compile(r"^(?P<rule>all|prompt)-f(?P<skipped>[1-9]\d*)$")
_FIRST_LAST = re.compile(r"^(?:f(?P<first>\d+))?(?P<plus>\+)?(?:l(?P<last>\d+))?$")


@dataclass(frozen=True)
class Positions:
    """A parsed position rule.

    Attributes:
        everywhere: every token of the prompt and of the completion.
        first: how many tokens at the prompt's start; None for all of the prompt.
        last: how many at its end, its first token not among them.
        generated: the tokens of the completion too.
        skipped: how many tokens at the prompt's start are left out of these.
    """

    everywhere: bool
    first: int | None
    last: int
    generated: bool = False
    skipped: int = 0

    @classmethod
    def parse(cls, text: str) -> Positions:
        """A rule by its name (`all-f1`, `f3+l3`, …; the module lists them). Raises ValueError for any other text."""
        if but := _BUT_FIRST.fullmatch(text):
            return replace(cls.parse(but["rule"]), skipped=int(but["skipped"]))
        if text == "all":
            return cls(True, None, 0, True)
        if text == "prompt":
            return cls(False, None, 0)
        if text in ("last", "answer"):
            return cls(False, 0, 1, text == "answer")
        match = _FIRST_LAST.fullmatch(text)
        if match and (match["first"] or match["last"]):
            both = match["first"] is not None and match["last"] is not None
            first, last = int(match["first"] or 0), int(match["last"] or 0)
            if both == bool(match["plus"]) and first + last > 0:
                return cls(False, first, last)
        raise ValueError(
            "positions must be all, prompt, all-fN, prompt-fN, last, answer, fN, lM or fN+lM (such as all-f1), "
            f"got {text!r}"
        )

    def mask(self, prompt: Tensor, tokens: Tensor) -> Tensor:
        """(B, T) bool, True where the edit applies.

        Args:
            prompt: (B, T) bool, True on the prompt's tokens. tokens: (B, T) bool, True on all real
                tokens (prompt and completion). Padding is False in both, on whichever side it is.
        """
        if self.skipped:
            return replace(self, skipped=0).mask(prompt, tokens) & ~(prompt & (prompt.cumsum(-1) <= self.skipped))
        if self.everywhere:
            return tokens
        if self.first is None:
            return prompt
        from_start = prompt.cumsum(-1)
        from_end = prompt.flip(-1).cumsum(-1).flip(-1)
        ends = prompt & ((from_start <= self.first) | ((from_end <= self.last) & (from_start > 1)))
        return ends | (tokens & ~prompt) if self.generated else ends

    def untouched(self, prompt: int) -> int:
        """How many tokens at the start of a row with a prompt of so many tokens lie before every edited one."""
        if self.skipped:
            return max(0, min(self.skipped, prompt - 1))  # what follows a prompt is read off its last token
        if self.everywhere or self.first != 0:
            return 0
        return max(0, prompt - self.last, min(1, prompt - 1))
