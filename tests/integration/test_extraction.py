"""A server that reads a device's text out of one number, and what the default policy leaves of that.

The attack, word for word: a collective edit with b = 10^12 in the last block makes every hidden state one direction, so
the server has chosen the distribution of tokens itself; max-items = 1 makes stage 2's first loss that of one text, and
float64 exact. Two lengths' losses differ by one known number a token: the token. Without any of that, the same server
still ranks a text that it suspects among others by how well it explains the losses that it got.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from simulation.in_process import FIRST_NODE, InProcessGrid

from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.base import model as base_model
from fed.base.model import BaseModel
from fed.communication import wire
from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.edits.stiefel import random_rows
from fed.forward.batching import tokenize
from fed.lamp.tasks import get_task
from fed.methods.method import Tensors
from fed.policy.hidden_norms import measure
from fed.policy.policy import STRICT
from fed.settings.settings import Settings

WORDS = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "kelp", "larch")
TASK = get_task("LaMP_7")
BLOCKS, RANK = 4, 4
DECOYS, VICTIMS, PROBES = 1000, 12, 2


def texts(count: int, seed: int) -> list[str]:
    """Texts of six words each, all drawn alike: none is likelier than another for any other reason than the attack."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=6)) for _ in range(count)]


@dataclass(frozen=True)
class Server:
    """A server that sends what it likes to one device, and what it computes by itself on the public base.

    Attributes:
        settings: those it asks for.
        device: the device's node config.
        seen: the numbers that came back.
        refused: the rules that came instead.
    """

    settings: Settings
    device: dict[str, str]
    seen: list[float]
    refused: list[str]

    def ask(self, kind: str, run: int, settings: Settings, **records: object) -> Message:
        host = ConfigRecord({"users": json.dumps([self.device["user-id"]])})
        content = RecordDict({"host": host, **records})
        grid = InProcessGrid([self.device], settings, run)
        (reply,) = grid.send_and_receive([Message(content, dst_node_id=FIRST_NODE, message_type=kind)])
        if reply.has_error():
            self.refused.append(reply.error.reason)
        return reply

    def first_loss(self, edit: Tensors, run: int, **changes: object) -> float | None:
        """Stage 2's first loss over this collective edit, where the device gives it."""
        settings = replace(self.settings, **changes)
        arrays = ArrayRecord({"edit": Array(wire.pack(edit, settings.wire_dtype))})
        adopted = self.ask("query.adopt", run, settings, arrays=arrays)
        if adopted.has_error():
            return None
        name = str(adopted.content["0/node"]["collective"])
        reply = self.ask("train.personalize", run, settings, config=ConfigRecord({"collective": name}))
        if reply.has_error() or "epoch-1" not in reply.content.metric_records["0/metrics"]:
            return None
        self.seen.append(float(reply.content.metric_records["0/metrics"]["epoch-1"]))
        return self.seen[-1]


def direction(seed: int, norms: tuple[float, ...], *, strength: float) -> Tensors:
    """An edit of the last block whose b is so many times the base's norm there, and which takes out what it can."""
    draw = torch.Generator().manual_seed(seed)
    R = random_rows((1, RANK, 32), draw)
    b = torch.zeros(1, RANK)
    b[0, 0] = strength * norms[-1]
    return {"R": R, "W": R - R, "b": b}  # W = 0: what the text puts into these directions goes


def predicted(base: BaseModel, edit: Tensors, candidates: list[str], max_length: int) -> torch.Tensor:
    """The loss per token that each text would give, (N,) float64."""
    rows = tokenize([TASK.history_pair({"id": "1", "text": text}) for text in candidates], base.tokenizer, max_length)
    bank = EditBank.from_tensors(EditShape((BLOCKS - 1,), RANK, 32), [edit]).to(dtype=torch.float64)
    stack = EditStack(Layer(bank, Positions.parse("all"), shared=True))
    found = losses(base, [EditedRow(row, (0,)) for row in rows], stack)
    return torch.tensor([loss.nll / loss.tokens for loss in found], dtype=torch.float64)


def rank(observed: list[float], of_truth: list[float], of_decoys: torch.Tensor) -> float:
    """How many decoys explain the observed losses better than the truth, ties as halves: 0 is found out, 500 chance."""
    got = torch.tensor(observed, dtype=torch.float64)
    error = ((of_decoys - got[:, None]) ** 2).sum(0)
    own = ((torch.tensor(of_truth, dtype=torch.float64) - got) ** 2).sum()
    return float((error < own).sum()) + float((error == own).sum()) / 2


@pytest.fixture(scope="module")
def base(tiny_base) -> BaseModel:
    return base_model.load(str(tiny_base), dtype="float64")


@pytest.fixture
def server(settings, tiny_base, tmp_path):
    """server(texts, policy="") -> a server over a device with this history; the last text is the latest."""

    def make(history: list[str], policy: str = "", **changes: object) -> Server:
        home = tmp_path / f"device-{len(list(tmp_path.iterdir()))}"
        home.mkdir()
        (home / "history.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in history))
        device = {"user-id": "alice", "vault": str(home / "vault"), "history": str(home / "history.jsonl")}
        device["base-model"] = str(tiny_base)
        if policy:
            (home / "policy.toml").write_text(policy)
            device["policy"] = str(home / "policy.toml")
        greedy = {"layers": str(BLOCKS - 1), "stage1_rank": RANK, "positions": "all", "cohorts": "all"}
        return Server(settings(**greedy | changes), device, [], [])

    return make


EXACT = {"max_items": 1, "batch_size": 1, "dtype": "float64", "wire_dtype": "float64"}


def attack(server: Server, norms: tuple[float, ...], lengths: list[int]) -> tuple[Tensors, list[float | None]]:
    """The attack's edit, and the first loss at each max-length."""
    edit = direction(1, norms, strength=1e12)
    return edit, [server.first_loss(edit, run, max_length=length) for run, length in enumerate(lengths, 1)]


def test_without_a_policy_a_text_is_read_letter_by_letter_and_ranks_first_among_a_thousand(server, base):
    victim, *history = texts(9, 0)
    told = server([*history, victim], "open = true", **EXACT)
    lengths = list(range(16, len(victim) + 3))
    edit, got = attack(told, measure(base), lengths)
    # Letter by letter: what a length adds to the summed loss is one token's, which the server has chosen itself.
    sums = [loss * (length - 1) for loss, length in zip(got, lengths, strict=True)]
    letters = sorted(set(" ".join(WORDS)))
    alone = {letter: float(of) for letter, of in zip(letters, _letters(base, edit, letters), strict=True)}
    read = "".join(
        min(letters, key=lambda letter: abs(alone[letter] - (after - before)))
        for before, after in zip(sums, sums[1:], strict=False)
    )
    assert len(read) > 10 and (" " + victim).endswith(read)
    # And as a whole, from two of the losses.
    two = [got[0], got[-1]]
    decoys = texts(DECOYS, 1)
    of_decoys = torch.stack([predicted(base, edit, decoys, length) for length in (lengths[0], lengths[-1])])
    of_truth = [float(predicted(base, edit, [victim], length)) for length in (lengths[0], lengths[-1])]
    assert rank(two, of_truth, of_decoys) == 0 and told.refused == []


def _letters(base: BaseModel, edit: Tensors, letters: list[str]) -> list[float]:
    """The loss of each letter alone where every hidden state is the edit's direction."""
    state = (edit["R"][0].T @ edit["b"][0]).double()
    norm, head = base.model.model.norm, base.model.lm_head
    log_p = torch.log_softmax(head(norm(state[None, None])), -1)[0, 0].detach()
    return [-float(log_p[base.tokenizer(letter)["input_ids"][0]]) for letter in letters]


def test_the_attack_gets_no_number_from_a_device_with_the_default_policy(server, base):
    history = texts(9, 0)
    told = server(history, **EXACT)
    norms = measure(base)
    _, got = attack(told, norms, [64, 65, 66])
    assert got == [None] * 3 and told.seen == []
    assert set(told.refused) == {
        "policy: dtype must be one of auto, float32, bfloat16, float16"
    }  # the first of its rules; each of the others is enough
    for changes, rule in (
        ({"max_items": 8, "max_length": 64, "batch_size": 4}, "|b| must be at most 0.25"),
        ({"max_items": 1, "max_length": 64, "batch_size": 4}, "max-items must be 0 or 8"),
        ({"max_items": 8, "max_length": 65, "batch_size": 4}, "max-length must be 64 to 2048 in steps of 32"),
    ):
        one = server(history, **EXACT | {"dtype": "float32", "wire_dtype": "float32"} | changes | {"max_queries": 0})
        assert one.first_loss(direction(1, norms, strength=1e12), 1) is None and one.seen == []
        assert rule in one.refused[0] and "got" not in one.refused[0]
    assert not list(Path(told.device["vault"]).glob("*/personal.*")) and not list(
        Path(told.device["vault"]).glob("collective-*")
    )


def test_within_the_default_policy_the_text_ranks_as_any_of_a_thousand_decoys(server, base):
    norms = measure(base)
    probes = [direction(seed, norms, strength=0.99 * STRICT.bias) for seed in range(PROBES)]
    within = {"max_items": 8, "batch_size": 4, "max_length": 64, "dtype": "float32", "max_queries": 0}
    decoys = texts(DECOYS, 2)
    of_decoys = torch.stack([predicted(base, edit, decoys, 64) for edit in probes])
    ranks = []
    for victim in range(VICTIMS):
        told = server(history := texts(8, 100 + victim), **within)
        got = [told.first_loss(edit, run) for run, edit in enumerate(probes, 1)]
        assert told.refused == [] and None not in got
        assert all(abs(loss / STRICT.loss_step - round(loss / STRICT.loss_step)) < 1e-9 for loss in got)
        ranks.append(rank(got, [float(predicted(base, edit, [history[-1]], 64)) for edit in probes], of_decoys))
    # Uniform on 0..1000 has a standard deviation of 289: the mean of twelve lies within 83 of 500 two times in three.
    assert abs(sum(ranks) / VICTIMS - DECOYS / 2) < 2 * 289 / VICTIMS**0.5
    assert sum(place < DECOYS / 20 for place in ranks) <= 3  # among the first 50 of 1,000: 0.6 of twelve by chance


def test_a_device_answers_so_many_messages_and_then_no_more(server, base):
    told = server(texts(8, 5), "messages-an-hour = 3\nmessages-a-day = 5", max_items=8, batch_size=4, max_queries=0)
    edit = direction(0, measure(base), strength=0.1)
    assert told.first_loss(edit, 1) is not None and told.first_loss(edit, 2) is None
    assert told.refused == ["policy: at most 3 messages are accepted an hour"]
