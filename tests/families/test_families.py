"""Every family of bases, tiny and random: what is true of one is true of all, whatever their caches keep.

References are whole rows, one at a time, without any cache; for decoding a loop that reads the whole row at every step.
"""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
import transformers

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.base.model import BaseModel, load
from fed.base.random_base import tiny_tokenizer
from fed.base.skeleton import skeleton
from fed.base.sources import check
from fed.edits import pyreft_files
from fed.edits.hooks import decoder_blocks
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.edits.stack import BARE, EditStack, Layer
from fed.forward import prefix_cache
from fed.forward.activation_cache import CACHE
from fed.forward.batching import Row
from fed.randomness import generator
from fed.training.plan import TrainSettings
from fed.training.train import train
from tests.families.bases import FAMILIES, base_of, model_of

pytestmark = pytest.mark.nightly
every_family = pytest.mark.parametrize("family", FAMILIES)

PLENTY = 1 << 24
ALL, LAST = Positions.parse("all"), Positions.parse("l2")
PROMPTS = ((5, 9, 11, 4, 3, 8, 21, 30, 14, 6, 7, 9), (6,), (13, 14, 15, 2, 9), (40, 41, 5, 8, 8, 9, 10, 12))
ROWS = [Row(prompt, (20 + i, 9, 17 + i, 0)[i % 2 :]) for i, prompt in enumerate(PROMPTS)]
LABELS = [(7,), (7, 9, 4, 0), (12, 3, 0), (30, 31, 32, 33, 34, 0)]


@lru_cache(maxsize=1)
def base(family: str) -> BaseModel:
    return base_of(family)


def stack_of(random_bank, at=ALL):
    """A shared edit below another of each of two users."""
    float32 = {"dtype": torch.float32}
    return EditStack(
        Layer(random_bank(1, seed=1, **float32), at, shared=True), Layer(random_bank(2, seed=2, **float32), at)
    )


def trained(family, random_bank, users, at, *, known=True, epochs=6):
    """(edits, losses of each step) of these users' rows, trained together."""
    CACHE.clear()
    bank = random_bank(len(users), seed=3, dtype=torch.float32, scale=0.0)
    plan = TrainSettings(epochs, 2, 0.02, activation_cache=PLENTY if known else 0, token_budget=64)
    rows = [ROWS if user == "a" else ROWS[::-1][:3] for user in users]
    results = train(base(family), EditStack(Layer(bank, at)), rows, [generator(0, u) for u in users], plan)
    CACHE.clear()
    assert not any(result.error for result in results)
    return bank, [result.step_losses for result in results]


@every_family
@pytest.mark.parametrize("at", [ALL, LAST], ids=["all", "l2"])
def test_the_loss_falls_and_a_user_alone_learns_what_it_learns_beside_another(family, random_bank, at):
    _, together = trained(family, random_bank, ("a", "b"), at)
    _, alone = trained(family, random_bank, ("a",), at)
    assert together[0] == pytest.approx(alone[0], rel=2e-3)
    a_epoch = len(alone[0]) // 6
    assert sum(alone[0][-a_epoch:]) < 0.995 * sum(alone[0][:a_epoch])


@every_family
def test_what_is_kept_between_steps_changes_nothing(family, random_bank, monkeypatch):
    """States below the first edit, and prefixes where the base's cache can serve them."""
    reads = []
    real = prefix_cache.read
    monkeypatch.setattr(prefix_cache, "WORTH", 0.1)
    monkeypatch.setattr(prefix_cache, "read", lambda *what: reads.append(1) or real(*what))
    _, known = trained(family, random_bank, ("a", "b"), LAST)
    assert not reads or base(family).serves.prefix
    assert reads or family not in ("llama", "gpt2", "deepseek_v3")  # keys and values of one size, and of two
    _, anew = trained(family, random_bank, ("a", "b"), LAST, known=False)
    for own, other in zip(known, anew, strict=True):
        assert own == pytest.approx(other, rel=2e-3)


@every_family
def test_an_answer_is_that_of_the_whole_row_alone(family, random_bank):
    stack = stack_of(random_bank)
    rows = [EditedRow(Row(p, ()), e) for p in PROMPTS for e in ((None, None), (0, 0), (0, 1), (None, 1))]
    together = generate(base(family), rows, stack, Decoding(8))
    alone = [generate(base(family), [row], stack, Decoding(8))[0] for row in rows]
    assert together == alone and len(set(together)) > 4
    for prompt, text in zip(PROMPTS, together[::4], strict=True):  # without edits, read whole at each step
        ids = list(prompt)
        for _ in range(8):
            with torch.no_grad():
                token = int(base(family).model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
            if token == 0:
                break
            ids.append(token)
        assert text == base(family).tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


@every_family
def test_a_choice_among_labels_is_that_of_whole_rows(family, random_bank):
    stack = stack_of(random_bank)
    rows = [EditedRow(Row(p, label), e) for p in PROMPTS for e in ((None, None), (0, 1)) for label in LABELS]
    together = losses(base(family), rows, stack)
    alone = [losses(base(family), [row], stack)[0] for row in rows]
    assert [loss.nll for loss in together] == pytest.approx([loss.nll for loss in alone], rel=1e-4)
    by_hand = base(family).model(input_ids=torch.tensor([[*PROMPTS[0], *LABELS[1]]]), use_cache=False)
    log_p = by_hand.logits[0].log_softmax(-1)[len(PROMPTS[0]) - 1 : -1]
    expected = -sum(float(log_p[i, token]) for i, token in enumerate(LABELS[1]))
    assert together[1].nll == pytest.approx(expected, rel=1e-4)


@every_family
def test_a_folder_of_the_family_passes_the_check_and_is_loaded_as_it_was(family, tmp_path, monkeypatch):
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))
    transformers.utils.logging.disable_progress_bar()
    model = model_of(family)
    model.save_pretrained(tmp_path / family)
    tiny_tokenizer().save_pretrained(tmp_path / family)
    check(str(tmp_path / family))
    loaded = load(str(tmp_path / family), device="cpu", dtype="float32")
    assert len(decoder_blocks(loaded.model)) == loaded.skeleton.layers == 4
    shapes = skeleton(str(tmp_path / family))
    assert (shapes.parameters, shapes.linears) == (loaded.skeleton.parameters, loaded.skeleton.linears)
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, model(input_ids=ids).logits)


@every_family
def test_edits_leave_as_pyreft_files_and_answer_the_same_when_they_are_read_back(family, random_bank, tmp_path):
    bank, _ = trained(family, random_bank, ("a",), ALL, epochs=2)
    pyreft_files.write(tmp_path / "edit", [(bank.shape.blocks, bank.tensors(0))])
    read = {}
    for layer in bank.shape.blocks:
        state = torch.load(tmp_path / "edit" / f"intkey_layer_{layer}_comp_block_output_unit_pos_nunit_1#0.bin")
        for name, tensor in (("R", state["rotate_layer"].mT), ("W", state["weight"]), ("b", state["bias"])):
            read.setdefault(name, []).append(tensor)
    back = EditBank(bank.shape, *(torch.stack(read[name])[None] for name in ("R", "W", "b")))
    rows = [EditedRow(row, (0,)) for row in ROWS]
    expected = losses(base(family), rows, EditStack(Layer(bank, ALL)))
    assert losses(base(family), rows, EditStack(Layer(back, ALL))) == expected
    assert losses(base(family), [EditedRow(row) for row in ROWS], BARE) != expected
