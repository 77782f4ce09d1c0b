"""`python -m clients.chat`: arms answer as their edits say, by pipe, with the vault's own settings."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from clients import chat as command
from clients.chat import Chat
from clients.device.node_config import NodeConfig
from clients.node import Node
from fed.base import model as base_model
from fed.privacy.sealed import Secret, new_key_file
from fed.privacy.vault import Vault
from fed.prompts.profile import kept_text

REPOSITORY = Path(__file__).resolve().parents[2]
TEXTS = ["I am going to run.", "the food was really good"]


@pytest.fixture
def filled(tmp_path, tiny_base, random_bank):
    """filled(secret, key=value, …) -> a vault with alice's edits on the tiny base, strong enough to change answers."""
    app = tomllib.loads((REPOSITORY / "sims" / "lamp7" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    tiny = {"base-model": str(tiny_base), "layers": "1,2", "stage1-rank": 3, "stage2-rank": 2, "dtype": "float32"}
    tiny |= {"stage2-positions": "same", "max-new-tokens": 8}

    def make(secret: Secret | None = None, **changes: object) -> Vault:
        vault = Vault(tmp_path / "vault", secret)
        edits = [random_bank(rank=r, seed=r, scale=0.6, dtype=torch.float32).tensors(0) for r in (3, 2)]
        vault.write(
            "alice",
            edits[1],
            base=base_model.load(str(tiny_base), dtype="float32").fingerprint,
            collective=vault.write_collective(edits[0]),
            settings=json.dumps(app | tiny | {key.replace("_", "-"): value for key, value in changes.items()}),
        )
        return vault

    return make


def run(capsys, monkeypatch, text: str, *arguments: object) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    code = command.main([str(one) for one in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_each_arm_answers_greedily_by_its_own_edits(filled, random_bank, reference_logits):
    chat = Chat(filled(), "alice")
    banks = [random_bank(rank=r, seed=r, scale=0.6, dtype=torch.float32) for r in (3, 2)]
    prompt = f"{chat.task.instruction}{TEXTS[0]}\ntweet:"
    for arm, count in (("base", 0), ("stage1", 1), ("stage1+2", 2)):
        ids = chat.base.tokenizer(prompt)["input_ids"]
        new: list[int] = []
        for _ in range(8):
            row = ids + new
            logits = reference_logits(chat.base, row, [(bank, 0, [True] * len(row)) for bank in banks[:count]])
            new.append(int(logits[-1].argmax()))
            if new[-1] == chat.base.tokenizer.eos_token_id:
                break
        text = chat.base.tokenizer.decode(new, skip_special_tokens=True).strip().split("\n")[0]
        assert chat.answer(TEXTS[0], arm=arm) == " ".join(text.split())
    assert len({chat.answer(TEXTS[0], arm=arm) for arm in command.ARMS}) == 3


def test_a_pipe_gets_one_answer_a_line_and_nothing_else(capsys, monkeypatch, filled):
    vault = filled()
    code, out, err = run(capsys, monkeypatch, f"{TEXTS[0]}\n\n{TEXTS[1]}", vault.root)
    chat = Chat(vault, "alice")
    assert code == 0 and err == ""
    assert out.splitlines() == [chat.answer(text) for text in TEXTS]


def test_compare_names_the_arms(capsys, monkeypatch, filled):
    _, out, _ = run(capsys, monkeypatch, TEXTS[0], filled().root, "--compare")
    assert [line.split()[0] for line in out.splitlines()] == ["base", "stage1", "stage1+2"]


def test_raw_takes_the_line_as_the_prompt_and_length_is_bounded(filled):
    chat = Chat(filled(), "alice")
    assert chat.answer("abc", raw=True) != chat.answer("abc")
    assert len(chat.answer("abc", max_new_tokens=2)) <= 2  # one character a token


def asked_by(chat: Chat, text: str, monkeypatch) -> tuple[int, ...]:
    """The tokens that a text is asked by."""
    questions = []
    monkeypatch.setattr(chat._reader, "generate", lambda own, **_: questions.extend(own) or ["x"] * len(own))
    chat.answer(text)
    return questions[0].row.question


@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
def test_a_text_is_worded_exactly_as_the_vaults_run_worded_it(
    settings, tiny_chat_base, random_bank, monkeypatch, capsys, prompt_format
):
    run = settings(
        base_model=str(tiny_chat_base), data="synthetic:1", dtype="float32", retrieved=2, profile=True, max_queries=2,
        max_length=500, prompt_format=prompt_format,
    )  # fmt: skip
    node = Node(run, NodeConfig(0, 1), 7)
    user = node.roster.stage2[0]
    tested = node.test_user(user)  # writes the profile text into the vault
    edits = [random_bank(rank=r, seed=r, dtype=torch.float32).tensors(0) for r in (3, 2)]
    collective = node.vault.write_collective(edits[0])
    node.vault.write(user, edits[1], base=node.base.fingerprint, collective=collective, settings=run.as_json())
    chat = Chat(node.vault, user)
    for query, row in zip(tested.queries, tested.rows, strict=True):
        assert asked_by(chat, chat.task.query_text(query), monkeypatch) == row.question
    words = chat.base.tokenizer.decode(list(tested.rows[0].question))
    assert words.startswith("[system]" if prompt_format == "chat" else kept_text(node.vault, user).split(" ")[0])
    assert words.count("tweet:") == 3 and chat.missing == [] and "warning" not in capsys.readouterr().err


def test_what_stood_before_the_runs_prompts_and_is_not_here_is_said(filled, capsys, tmp_path, monkeypatch):
    chat = Chat(filled(profile=True, retrieved=2), "alice")
    said = capsys.readouterr().err
    assert "profile text of user 'alice' (profile = true), and the vault keeps none" in said
    assert "up to 2 items of the user's history" in said and "give --history FILE" in said
    plain = f"{chat.task.instruction}x\ntweet:"
    assert chat.base.tokenizer.decode(list(asked_by(chat, "x", monkeypatch))) == plain
    (tmp_path / "own.jsonl").write_text('{"text": "soup is good"}\n{"text": "rain again"}\n')
    vault = filled(profile=True, retrieved=1)
    vault.keep("alice", "profile", {"text": torch.tensor(list(b"short lines"), dtype=torch.uint8)}, {"key": "0" * 16})
    chat = Chat(vault, "alice", history=tmp_path / "own.jsonl")
    words = chat.base.tokenizer.decode(list(asked_by(chat, "rain", monkeypatch)))
    assert words == f"short lines\ntweet: rain again\n\n{chat.task.instruction}rain\ntweet:"
    assert capsys.readouterr().err == ""


def test_a_run_in_turns_needs_a_base_with_a_template(filled):
    with pytest.raises(ValueError, match="needs a base model with a chat template, and its tokenizer has none"):
        Chat(filled(prompt_format="chat"), "alice")


def test_a_sealed_vault_answers_for_its_key_alone(capsys, monkeypatch, filled, tmp_path):
    new_key_file(tmp_path / "key")
    vault = filled(Secret.from_key_file(tmp_path / "key"))
    code, out, err = run(capsys, monkeypatch, TEXTS[0], vault.root)
    assert code == 1 and out == "" and "is encrypted" in err
    code, out, _ = run(capsys, monkeypatch, TEXTS[0], vault.root, "--key-file", tmp_path / "key")
    assert code == 0 and len(out.splitlines()) == 1


def test_another_base_model_is_refused(capsys, monkeypatch, filled, tiny_llama, tiny_tokenizer, tmp_path):
    tiny_llama(seed=5).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    code, out, err = run(capsys, monkeypatch, "x", filled().root, "--base-model", tmp_path / "other")
    assert code == 1 and out == "" and "give the right one with --base-model" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere"], "must be a folder"),
        (["{vault}", "--user", "bob"], "got 'bob'; it holds: alice"),
        (["{vault}", "--temperature", "-1"], "must not be negative"),
        (["{vault}", "--max-new-tokens", "0"], "at least 1"),
    ],
)
def test_a_mistake_is_one_clear_line(capsys, monkeypatch, filled, arguments, words):
    root = filled().root
    code, out, err = run(capsys, monkeypatch, "x", *(a.format(vault=root) for a in arguments))
    assert code == 1 and out == "" and words in err and len(err.splitlines()) == 1


def test_the_module_runs_as_a_command_by_pipe(filled):
    done = subprocess.run(
        [sys.executable, "-m", "clients.chat", str(filled().root)],
        input=TEXTS[0],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 1, done.stderr
