"""What ROUGE counts: LaMP's words, or those of any script.

    lamp      rouge-score's own: runs of a–z and 0–9 after lower case. LaMP's scores are in these, and a text in another
              script has none of them: every answer to it scores 0, its own gold among them
    unicode   runs of letters, digits and the marks on them after NFKC and case folding; where a script writes no spaces
              between words (Han, kana, Thai, Lao, Khmer, Burmese, Tibetan) each letter is one, as in character ROUGE,
              and so is each pictograph. On ASCII the same words as `lamp`

Source: C.-Y. Lin, "ROUGE: A Package for Automatic Evaluation of Summaries" (2004); character units for Chinese as in
LCSTS (Hu et al., 2015).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import regex

TOKENIZERS = ("lamp", "unicode")
UNSEEN = 0.1  # of the golds: more are worth a warning
_LAMP = regex.compile(r"[a-z0-9]")
_ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Extended_Pictographic}"
_LETTER = rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{_ALONE}]]"
_JOINER = rf"[\u200c\u200d](?={_LETTER})"  # inside a word, as in Persian
_WORD = regex.compile(rf"[{_ALONE}]\p{{M}}*|{_LETTER}(?:{_LETTER}|{_JOINER})*", regex.VERSION1)


class UnicodeWords:
    """A tokenizer as rouge-score takes one."""

    def tokenize(self, text: str) -> list[str]:
        """The words of a text in any script, case folded."""
        return list(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def unseen(golds: Iterable[str]) -> tuple[int, int]:
    """(golds without any word that LaMP's own ROUGE counts, all golds)."""
    seen = [_LAMP.search(gold.lower()) is not None for gold in golds]
    return seen.count(False), len(seen)


def warning(without: int, golds: int) -> str | None:
    """What to say where more than a tenth of the golds score 0 in LaMP's words whatever is answered; else None."""
    if without <= UNSEEN * golds:
        return None
    return (
        f"{without} of {golds} golds have no word of a–z or 0–9 in them, so LaMP's own ROUGE is 0 for them whatever is "
        f"answered; -c 'rouge-tokenizer=\"unicode\"' counts the words of any script beside it"
    )
