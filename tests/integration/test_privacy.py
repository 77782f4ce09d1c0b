"""Stage-2 tensors stay in the vault: no message of a run holds them, and users do not depend on each other's."""

from __future__ import annotations

import json

import numpy as np
import torch
from flwr.app import Message

from fed.communication.wire import pack
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.privacy.tensor_files import read_tensors
from fed.privacy.vault import PERSONAL, Vault
from tests.integration.in_process import RecordingGrid, federate


def arrays_in(message: Message) -> list[tuple[str, np.ndarray]]:
    if message.has_error():
        return []
    return [(key, a.numpy()) for record in message.content.array_records.values() for key, a in record.items()]


def test_no_message_of_a_run_holds_a_stage_2_tensor_by_bytes_or_by_shape_and_name(plain_run):
    private = [read_tensors(path)[0] for path in (plain_run.folder / "vault").glob(f"*/{PERSONAL}")]
    assert len(private) == 6
    needles: list[bytes] = []
    shapes: set[tuple[str, tuple[int, ...]]] = set()
    sizes: set[int] = set()
    for tensors in private:
        for dtype in ("float32", "float16", "bfloat16"):
            needles.append(pack(tensors, dtype).tobytes())
            needles += [pack({name: t}, dtype).tobytes() for name, t in tensors.items() if t.abs().sum() > 0]
        shapes |= {(name, tuple(t.shape)) for name, t in tensors.items()}
        sizes.add(sum(t.numel() for t in tensors.values()))
    crossed = 0
    for _, _, message in plain_run.grid.seen:
        for name, array in arrays_in(message):
            crossed += 1
            assert (name, array.shape) not in shapes
            assert array.size not in sizes
            assert not any(needle in array.tobytes() for needle in needles)
        if not message.has_error():
            for record in (
                *message.content.config_records.values(),
                *message.content.metric_records.values(),
            ):
                for value in record.values():
                    raw = value if isinstance(value, bytes) else str(value).encode()
                    assert not any(needle in raw for needle in needles)
                    assert not isinstance(value, list)  # no room for a tensor in disguise
    assert crossed > 0


def test_stage_2_and_the_evaluation_send_no_array_at_all(plain_run):
    seen = plain_run.grid.seen
    later = [m for _, _, m in seen if m.metadata.message_type in ("train.personalize", "evaluate")]
    assert len(later) == 8
    assert not any(arrays_in(message) for message in later)


def test_no_text_of_a_user_crosses(plain_run):
    short = plain_run.settings
    corpus = open_corpus(short.data, get_task("LaMP_7"), seed=short.seed)
    user = corpus.user(corpus.cohorts["test"][0])
    texts = [item["text"] for item in user.profile] + [q.gold for q in user.queries]
    for _, _, message in plain_run.grid.seen:
        said = "" if message.has_error() else str(dict(message.content))
        assert not any(text in said for text in texts)


def test_no_plain_wording_of_a_tweet_crosses(settings, bare_tweets, talkative_base):
    run = settings(data=bare_tweets, base_model=talkative_base, history_rows="pairs", held_out=1, max_new_tokens=0)
    _, grid, folder = federate(run, 2)
    files = list((folder / "vault").glob("*/personal.plain.safetensors"))
    assert len(files) == len({user for user in open_corpus(run.data, get_task("LaMP_7"), seed=0).cohorts["test"]})
    texts = [text for file in files for text in json.loads(bytes(read_tensors(file)[0]["texts"].tolist())).values()]
    assert len(texts) == len(files) * (run.max_items + run.held_out)
    needles = [text[:20] for text in texts if len(text) >= 20]
    assert len(needles) > len(texts) // 2
    for _, _, message in grid.seen:
        assert not message.has_error()
        said = str(dict(message.content))
        assert not any(text in said for text in needles)
        for _, array in arrays_in(message):
            assert not any(text.encode() in array.tobytes() for text in needles)


def test_erasing_one_users_vault_changes_no_other_users_own_arms(settings, plain_run):
    whole = plain_run.report
    victim = whole["users"][1]["user_id"]
    short = settings()

    def erase(message_type: str) -> None:
        if message_type == "evaluate":
            Vault(short.run_folder(7) / "vault").erase(victim)

    erased, _, _ = federate(short, 2, before_send=erase)
    for before, after in zip(whole["users"], erased["users"], strict=True):
        own = ("base", "stage1") if before["user_id"] == victim else ("base", "stage1", "stage1+2")
        for arm in own:
            assert after["arms"][arm] == before["arms"][arm]
    assert next(u for u in erased["users"] if u["user_id"] == victim)["arms"]["stage1+2"] is None


def test_a_vault_without_one_user_trains_the_others_to_the_same_bits(settings, tmp_path):
    _, _, six = federate(settings(output_dir=str(tmp_path / "six"), dtype="float64", wire_dtype="float64"), 1)
    _, _, five = federate(
        settings(output_dir=str(tmp_path / "five"), dtype="float64", wire_dtype="float64", stage2_users=5), 1
    )
    compared = 0
    for path in sorted((five / "vault").glob(f"*/{PERSONAL}")):
        alone, _ = read_tensors(path)
        among, _ = read_tensors(six / "vault" / path.parent.name / PERSONAL)
        for name, tensor in alone.items():
            assert torch.allclose(tensor, among[name], rtol=1e-9, atol=1e-12)
        compared += 1
    assert compared == 5


def test_a_message_does_not_say_how_hard_a_client_is_pulled(plain_run, settings, monkeypatch):
    deliver = RecordingGrid.deliver

    def pulling(grid: RecordingGrid, message: Message) -> Message:
        if message.metadata.message_type == "train":
            message.content["config"]["proximal-mu"] = 1e30
        return deliver(grid, message)

    monkeypatch.setattr(RecordingGrid, "deliver", pulling)
    report, _, _ = federate(settings(max_new_tokens=0, max_queries=1, stage2_users=2), 2)
    assert [row["loss"] for row in report["rounds"]] == [row["loss"] for row in plain_run.report["rounds"]]
