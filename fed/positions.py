"""Which token positions an edit touches, right under left and right padding.

    all      every token, generated ones too          last     the prompt's last token
    prompt   every token of the prompt                f3+l3    the prompt's first 3 and last 3 (also f3, l3)
    answer   the prompt's last token and the completion's: all that an answer's tokens are read off

The names for the first and last positions follow LoReFT (Wu et al. 2024, section 4.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor

_FIRST_LAST = re.compile(r"^(?:f(?P<first>\d+))?(?P<plus>\+)?(?:l(?P<last>\d+))?$")


@dataclass(frozen=True)
class Positions:
    """A parsed position rule.

    Attributes:
        everywhere: every token of the prompt and of the completion.
        first, last: how many tokens at each end of the prompt; None for all of the prompt.
        generated: the tokens of the completion too.
    """

    everywhere: bool
    first: int | None
    last: int
    generated: bool = False

    @classmethod
    def parse(cls, text: str) -> Positions:
        """`all`, `prompt`, `last`, `answer`, `fN`, `lM` or `fN+lM`. Raises ValueError otherwise."""
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
        raise ValueError(f"positions must be all, prompt, last, answer, fN, lM or fN+lM (such as f3+l3), got {text!r}")

    def mask(self, prompt: Tensor, tokens: Tensor) -> Tensor:
        """(B, T) bool, True where the edit applies.

        Args:
            prompt: (B, T) bool, True on the prompt's tokens. tokens: (B, T) bool, True on all real
                tokens (prompt and completion). Padding is False in both, on whichever side it is.
        """
        if self.everywhere:
            return tokens
        if self.first is None:
            return prompt
        from_start = prompt.cumsum(-1)
        from_end = prompt.flip(-1).cumsum(-1).flip(-1)
        ends = prompt & ((from_start <= self.first) | (from_end <= self.last))
        return ends | (tokens & ~prompt) if self.generated else ends

    def untouched(self, prompt: int) -> int:
        """How many tokens at the start of a row with a prompt of so many tokens lie before every edited one."""
        return 0 if self.everywhere or self.first != 0 else max(0, prompt - self.last)
