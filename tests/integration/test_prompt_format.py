"""A whole run in a chat's turns: every row that is trained on, scored or continued is worded by the base's template."""

from __future__ import annotations

import pytest

from clients import node
from fed.base import model as base_model
from tests.integration.in_process import federate


@pytest.mark.parametrize(
    ("task", "method", "answer"), [("LaMP_7", "perfit", "decode"), ("LaMP_3", "stylevector", "choice")]
)
def test_training_and_test_are_in_turns(settings, tiny_chat_base, monkeypatch, task, method, answer):
    rows = []

    def recorded(*arguments, tokenize=node.tokenize, **options):
        made = tokenize(*arguments, **options)
        rows.extend(made)
        return made

    monkeypatch.setattr(node, "tokenize", recorded)
    run = settings(
        task=task, method=method, answer=answer, base_model=str(tiny_chat_base), prompt_format="chat",
        data="synthetic:2", rounds=1, fraction=1.0, max_length=256, max_queries=1, max_items=2, dtype="float32",
        cohorts="all",
    )  # fmt: skip
    report, _, _ = federate(run, 1)
    assert report["arms"]["stage1+2"]["loss_per_token"] > 0 and report["arms"]["base"] is not None
    tokenizer = base_model.load(str(tiny_chat_base), dtype="float32").tokenizer
    assert len(rows) >= 2 * (2 + 1)
    for row in rows:
        prompt, completion = tokenizer.decode(list(row.prompt)), tokenizer.decode(list(row.completion))
        assert prompt.startswith("[user]") and prompt.endswith(":</s>[assistant]") and len(row) <= 256
        assert completion.endswith("</s>") and not completion.startswith(" ")
