"""A broken rule is one clear line, and the run does not go on as if nothing had happened."""

from __future__ import annotations

import errno
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.privacy.tensor_files import WrittenTogether
from fed.privacy.vault import PERSONAL, Vault
from server_strategy.grid.nodes import RunError
from tests.integration.in_process import federate


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "/nowhere/at/all"}, "/nowhere/at/all"),
        ({"base_model": "/nowhere/model.gguf"}, "base-model"),
        ({"layers": "1,9"}, "layers must lie in 0..3"),
        ({"task": "LaMP_9"}, "LaMP_9"),
    ],
)
def test_a_run_that_cannot_start_says_why_in_one_line(settings, changes, words):
    with pytest.raises((RunError, ValueError)) as caught:
        federate(settings(**changes), 2)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def broken_base(tiny_base, tmp_path):
    """broken_base(text) -> a copy of the tiny base that computes NaN wherever a row has a character of `text`."""

    def make(text: str) -> str:
        folder = tmp_path / "broken"
        shutil.copytree(tiny_base, folder)
        weights = load_file(folder / "model.safetensors")
        ids = AutoTokenizer.from_pretrained(tiny_base)(text)["input_ids"]
        weights["model.embed_tokens.weight"][torch.tensor(ids)] = float("nan")
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return str(folder)

    return make


def test_a_user_whose_training_fails_is_named_and_the_others_go_on(settings, broken_base, capsys):
    healthy = settings(max_new_tokens=0, data="synthetic:12")
    corpus = open_corpus(healthy.data, get_task("LaMP_7"), seed=healthy.seed)
    latest = {u: "".join(item["text"] for item in corpus.user(u).profile[-5:]) for u in corpus.cohorts["test"]}
    others = ["".join(q.input + q.gold for q in corpus.user(u).queries) for u in corpus.cohorts["others"]]
    letter = next(
        c
        for c in "jqxzkvwyb#<^*:;!?'"
        if 0 < sum(c in text for text in latest.values()) < len(latest) and sum(c in text for text in others) < 6
    )
    report, _, _ = federate(settings(base_model=broken_base(letter), max_new_tokens=0, data="synthetic:12"), 2)
    printed = capsys.readouterr().out
    for user in report["users"]:
        failed = letter in latest[user["user_id"]]
        assert (user["arms"]["stage1+2"] is None) == failed
        assert (f"warning: user {user['user_id']!r} could not train private vectors" in printed) == failed


def test_a_round_in_which_every_user_fails_stops_the_run(settings, broken_base):
    with pytest.raises(RunError, match="round 1: none of 3 users could train; the first: the loss is nan"):
        federate(settings(base_model=broken_base("abcdefghijklmnopqrstuvwxyz")), 2)


def test_a_torn_file_or_a_full_disk_costs_its_user_alone(settings, tmp_path, capsys, monkeypatch):
    """In stage 2 one user's disk is full; before the evaluation another user's file is cut short."""
    run = settings(max_new_tokens=0, data="synthetic:5", max_items=2, max_queries=1, output_dir=str(tmp_path))
    vault = Vault(run.run_folder(7) / "vault")
    add = WrittenTogether.add

    def full(self, path, body):
        if vault.folder("test-0001") in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        add(self, path, body)

    def tear(message_type):
        file = vault.folder("test-0003") / PERSONAL
        if message_type == "evaluate":
            file.write_bytes(file.read_bytes()[:100])

    monkeypatch.setattr(WrittenTogether, "add", full)
    report, _, _ = federate(run, 2, tear)
    said = capsys.readouterr().out
    assert re.search(r"warning: user 'test-0001' could not train private vectors: .*No space left on device", said)
    assert re.search(r"warning: user 'test-0003' could not be tested: .*damaged", said)
    arms = {user["user_id"]: user["arms"]["stage1+2"] for user in report["users"]}
    assert {user for user, scores in arms.items() if scores} == {"test-0000", "test-0002", "test-0004"}
    assert set(arms) == {"test-0000", "test-0001", "test-0002", "test-0004"}
