"""What `max-new-tokens` leaves of the golds: a longer one cannot be written to its end, whoever answers.

    cut_golds          golds of more tokens than max-new-tokens, their end (EOS) not counted
    reachable_rougeL   sum over all golds of the ROUGE-L of each as far as it can be written

The mean of the second is about the best ROUGE-L that a run can have. It is no bound: a text that leaves words out may
have more of the gold's in the same number of tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fed.base.tokens.chat_template import turn_end
from fed.forward.batching import Row
from fed.lamp import metrics
from fed.lamp.tasks import Task


def written(golds: Sequence[str], rows: Sequence[Row], tokenizer: Any, max_new_tokens: int) -> list[str]:
    """Each gold as far as it can be written.

    Args:
        golds: the texts.
        rows: of the same queries, the gold's tokens as completion.
        tokenizer: the one they come from.
        max_new_tokens: of an answer, at least 1.
    """
    texts = []
    for gold, row in zip(golds, rows, strict=True):
        ended = row.completion and row.completion[-1] in (tokenizer.eos_token_id, turn_end(tokenizer))
        tokens = row.completion[:-1] if ended else row.completion
        cut = len(tokens) > max_new_tokens
        texts.append(tokenizer.decode(tokens[:max_new_tokens]).strip() if cut else gold)
    return texts


def statistics(
    task: Task,
    golds: Sequence[str],
    texts: Sequence[str],
    *,
    rouge_tokenizer: str = "lamp",
) -> dict[str, float]:
    """Additive sums over a user's golds.

    Args:
        task: its metrics have ROUGE-L.
        golds: whole.
        texts: as far as they can be written, of `written`.
        rouge_tokenizer: whose words ROUGE counts.
    """
    cut = sum(text != gold for gold, text in zip(golds, texts, strict=True))
    rouge = metrics.statistics(task, golds, texts, rouge_tokenizer=rouge_tokenizer)["rougeL"]
    return {"cut_golds": float(cut), "reachable_rougeL": rouge}


def of_arm(parts: Sequence[Mapping[str, float]]) -> dict[str, float] | None:
    """For report.json: golds, cut_golds, and rougeL, the mean of what can be reached; None where nothing was counted.

    parts: each user's additive statistics of one arm; golds are the same in every arm.
    """
    total = metrics.merge(part for part in parts if "cut_golds" in part)
    if not total.get("count"):
        return None
    return {
        "golds": int(total["count"]),
        "cut_golds": int(total["cut_golds"]),
        "rougeL": total["reachable_rougeL"] / total["count"],
    }
