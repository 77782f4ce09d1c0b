"""Decoding with one edit per row, and losses of given completions.

References: `model.generate` where there are no edits; with edits, a loop without a cache that runs the whole row
through the model at every step, its mask extended by hand (the fixture `reference_logits`).
"""

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from fed.answering.decoding import generate as generation
from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Loss
from fed.answering.scoring import losses
from fed.edits.positions import Positions
from fed.edits.stack import BARE, EditStack, Layer
from fed.forward.batching import Row, tokenize
from fed.forward.budget import Budget
from fed.randomness import generator
from fed.training.plan import TrainSettings
from fed.training.train import train

PROMPTS = [
    "gae hge",
    "b",
    "cebbfh bf",
    "aeh",
    " ",
    "gahfdfbdddc ",
    "ab ",
    "fddaebdf",
    "cd",
    "babdbgbfba",
    "fb",
    "bbf hbe ",
]
GREEDY = Decoding(10)


def rows_of(base, prompts, completion="xy"):
    return tokenize([(prompt, completion) for prompt in prompts], base.tokenizer, 64)


def mask_by_hand(rule, prompt, total):
    """Which of a prompt's and its continuation's tokens the rule edits."""
    inside = {
        "all": lambda t: True,
        "all-f1": lambda t: t >= 1,
        "all-f2": lambda t: t >= min(2, prompt),
        "all-f4": lambda t: t >= min(4, prompt),
        "prompt-f2": lambda t: 2 <= t < prompt,
        "prompt": lambda t: t < prompt,
        "last": lambda t: 0 < t == prompt - 1,
        "answer": lambda t: t >= max(1, prompt - 1),
        "f2+l1": lambda t: t < min(2, prompt) or t == prompt - 1,
    }[rule]
    return [inside(t) for t in range(total)]


def edits_of(row, banks, rule, total):
    """`rule`: of both layers, or "collective's, personalized one's"."""
    rules = (rule.split(", ") * 2)[:2]
    return [
        (bank, number, mask_by_hand(rule, len(row.row.prompt), total))
        for bank, number, rule in zip(banks, row.edits, rules, strict=True)
        if number is not None
    ]


def stack_of(banks, rule="all"):
    """A shared layer and one of users' own, at the rule's positions (as in `edits_of`)."""
    first, second = (Positions.parse(name) for name in (rule.split(", ") * 2)[:2])
    return EditStack(Layer(banks[0], first, shared=True), Layer(banks[1], second))


@pytest.fixture(scope="module")
def without_cache(tiny64, reference_logits):
    """Greedy ids of one row, each from a forward pass over everything so far."""

    def run(row, banks, rule, count):
        ids, new = list(row.row.prompt), []
        while len(new) < count:
            edits = edits_of(row, banks, rule, len(ids))
            token = int(reference_logits(tiny64, ids, edits)[-1].argmax())
            if token == tiny64.tokenizer.eos_token_id:
                break
            ids.append(token)
            new.append(token)
        return new

    return run


@pytest.fixture(scope="module")
def mixed(tiny64, random_bank):
    """Rows of three users in several arms, and the banks."""
    banks = random_bank(1, seed=1), random_bank(3, layers=(0, 2), rank=3, seed=2)
    arms = [(None, None), (0, None), (0, 0), (0, 1), (None, 2), (0, 2)]
    return [EditedRow(row, arms[i % 6]) for i, row in enumerate(rows_of(tiny64, PROMPTS))], banks


@pytest.mark.parametrize("budget", [4096, 50])
def test_greedy_decoding_without_edits_is_models_generate(tiny64, budget):
    rows = [EditedRow(row) for row in rows_of(tiny64, PROMPTS)]
    expected = []
    for row in rows:
        ids = torch.tensor([row.row.prompt])
        out = tiny64.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=10, pad_token_id=0
        )
        expected.append(tiny64.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    assert len(set(expected)) > 6 and len({len(text) for text in expected}) > 3  # some rows end early, at once even
    assert generate(tiny64, rows, BARE, GREEDY, token_budget=budget) == expected


@pytest.mark.parametrize("rule", ["all", "all-f1", "all-f4", "prompt", "prompt-f2", "last", "answer", "f2+l1"])
def test_a_mixed_batch_gives_what_each_row_gives_without_a_cache(tiny64, mixed, without_cache, hooks_of, rule):
    rows, banks = mixed
    expected = [without_cache(row, banks, rule, 10) for row in rows]
    assert len({len(new) for new in expected}) > 2
    found = generate(tiny64, rows, stack_of(banks, rule), GREEDY)
    assert found == [tiny64.tokenizer.decode(new, skip_special_tokens=True) for new in expected]
    assert hooks_of(tiny64.model) == 0


def test_each_stage_has_positions_of_its_own(tiny64, mixed, without_cache):
    rows, banks = mixed
    found = {}
    for first, second in (("all", "last"), ("last", "all")):
        expected = [without_cache(row, banks, f"{first}, {second}", 10) for row in rows]
        stack = stack_of(banks, f"{first}, {second}")
        texts = generate(tiny64, rows, stack, GREEDY)
        assert texts == [tiny64.tokenizer.decode(new, skip_special_tokens=True) for new in expected]
        found[first] = texts, losses(tiny64, rows, stack)
    assert found["all"][0] != found["last"][0]
    for i, row in enumerate(rows):
        assert (found["all"][1][i] == found["last"][1][i]) == (row.edits == (None, None))


@pytest.mark.parametrize("rule", ["all", "last"])
def test_a_mixed_batch_gives_what_each_row_gives_alone(tiny64, mixed, rule):
    rows, banks = mixed
    stack = stack_of(banks, rule)
    together = generate(tiny64, rows, stack, GREEDY)
    assert together == [generate(tiny64, [row], stack, GREEDY)[0] for row in rows]
    assert together == generate(tiny64, rows[::-1], stack, GREEDY, token_budget=60)[::-1]


def test_the_positions_differ_in_the_decoding_steps(tiny64, mixed):
    """`prompt` and `all` edit the same prompt: the first token is the same, and later ones part."""
    rows, banks = mixed
    texts = {rule: generate(tiny64, rows, stack_of(banks, rule), GREEDY) for rule in ("all", "prompt", "last")}
    edited_rows = [i for i, row in enumerate(rows) if row.edits != (None, None)]
    assert [text[:1] for text in texts["all"]] == [text[:1] for text in texts["prompt"]]
    assert sum(texts["all"][i] != texts["prompt"][i] for i in edited_rows) > 2
    assert sum(texts["last"][i] != texts["prompt"][i] for i in edited_rows) > 2
    plain = [i for i in range(len(rows)) if i not in edited_rows]
    assert plain and all(texts["all"][i] == texts["prompt"][i] == texts["last"][i] for i in plain)


def test_rows_that_have_ended_leave_the_batch(tiny64, mixed, without_cache, monkeypatch):
    rows, banks = mixed
    lengths = [len(without_cache(row, banks, "all", 10)) for row in rows]
    sizes = []
    handle = tiny64.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: sizes.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    assert len({row.row.question for row in rows}) == len(rows)  # so that no pass is shared
    try:
        generate(tiny64, rows, stack_of(banks), GREEDY)
    finally:
        handle.remove()
    assert sizes == [sum(n >= step for n in lengths) for step in range(max(lengths) + 1)][: len(sizes)]
    assert len(sizes) == min(10, max(lengths) + 1) and sizes[0] == 12 > sizes[-1]


@pytest.fixture
def scripted(make_base):
    """A base whose next token is a fixed function of the last: f(next_of) sets it, and counts the forward passes."""
    base = make_base("float32")

    class Script:
        passes = 0

        def __call__(self, next_of):
            table = {base.tokenizer(a)["input_ids"][0]: base.tokenizer(b)["input_ids"][0] for a, b in next_of.items()}

            def hook(_module, _args, kwargs, output):
                self.passes += 1
                output.logits = torch.zeros_like(output.logits)
                for row, last in enumerate(kwargs["input_ids"][:, -1].tolist()):
                    output.logits[row, -1, table.get(last, 0)] = 1.0

            base.model.register_forward_hook(hook, with_kwargs=True)
            return base

    return Script()


def test_a_row_ends_at_eos_and_eos_is_cut_off(scripted):
    base = scripted({"a": "b", "b": "c"})
    rows = [EditedRow(row) for row in rows_of(base, ["a", "xb", "z"])]
    assert generate(base, rows, BARE, Decoding(9)) == ["bc", "c", ""]
    assert scripted.passes == 3


def test_a_row_ends_at_any_of_the_models_ends(scripted, monkeypatch):
    base = scripted({"a": "b", "b": "c", "c": "d"})
    rows = [EditedRow(row) for row in rows_of(base, ["a", "b", "z"])]
    assert generate(base, rows, BARE, Decoding(9)) == ["bcd", "cd", ""]
    (end,) = base.tokenizer("d")["input_ids"]
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", [0, end])
    base.__dict__.pop("end_ids")
    assert generate(base, rows, BARE, Decoding(9)) == ["bc", "c", ""]
    assert scripted.passes == 4 + 3
    assert Loss.of(3.0, 1.0, (6, end), base.end_ids) == (3.0, 2, 1.0, 1)


def test_a_row_ends_where_the_base_can_read_no_further(scripted, monkeypatch):
    base = scripted({"a": "b", "b": "a"})
    monkeypatch.setattr(base.model.config, "max_position_embeddings", 6)
    rows = [EditedRow(row) for row in rows_of(base, ["aaaa", "a"])]
    assert generate(base, rows, BARE, Decoding(9)) == ["bab", "bababa"]


def test_a_row_ends_at_the_stop_text_and_the_rest_is_cut_off(scripted):
    base = scripted({"a": "b", "b": ".", ".": "d", "d": "e", "e": "f", "f": "g", "g": "h", "q": "."})
    rows = [EditedRow(row) for row in rows_of(base, ["a", "d", "q"])]
    assert generate(base, rows, BARE, Decoding(4), stop=".") == ["b", "efgh", ""]
    assert scripted.passes == 4
    assert generate(base, rows[:1], BARE, Decoding(4), stop=".") == ["b"]
    assert scripted.passes == 6  # two steps, for the row ended with the text and not with max_new_tokens
    assert generate(base, rows[:1], BARE, Decoding(4), stop=None) == ["b.de"]


def test_blank_text_before_the_first_word_does_not_stop_a_row(scripted):
    base = scripted({"\n": "r", "r": "s", "s": "\n", " ": "\n"})
    rows = [EditedRow(row) for row in rows_of(base, ["s", " ", "r"])]
    assert generate(base, rows, BARE, Decoding(9), stop="\n") == ["rs", "rs", "s"]
    assert scripted.passes == 4


def test_no_new_tokens_is_an_empty_text(tiny64):
    assert generate(tiny64, [EditedRow(row) for row in rows_of(tiny64, ["a", "bc"])], BARE, Decoding(0)) == [
        "",
        "",
    ]


def test_no_rows_are_no_texts_and_no_losses(tiny64):
    assert generate(tiny64, [], BARE, GREEDY) == [] and losses(tiny64, [], BARE) == []


def test_sampling_with_a_generator_a_row_does_not_depend_on_the_neighbours(tiny64, mixed):
    rows, banks = mixed
    decoding = Decoding(10, temperature=1.5, top_k=20, top_p=0.95)

    def run(numbers, budget=4096):
        return generate(
            tiny64, [rows[i] for i in numbers], stack_of(banks), decoding,
            generators=[generator(0, i) for i in numbers], token_budget=budget,
        )  # fmt: skip

    together = run(range(12))
    assert together == [run([i])[0] for i in range(12)]
    assert together == run(range(11, -1, -1), budget=60)[::-1]
    greedy = generate(tiny64, rows, stack_of(banks), GREEDY)
    assert sum(a != b for a, b in zip(together, greedy, strict=True)) > 6


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_equal_prompts_under_the_same_edits_are_answered_once_where_no_chance_is_in_it(tiny64, mixed, temperature):
    rows, banks = mixed
    twice = [*rows, *(EditedRow(Row(row.row.prompt, (9, 0)), row.edits) for row in rows[::-1])]
    finished, sizes = [], []
    decoding = Decoding(4, temperature=temperature, top_k=50, top_p=1.0)
    draws = [generator(0, i) for i in range(len(twice))] if temperature else None
    handle = tiny64.model.register_forward_pre_hook(
        lambda _m, _a, kwargs: sizes.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    try:
        texts = generate(tiny64, twice, stack_of(banks), decoding, generators=draws, on_rows=finished.append)
    finally:
        handle.remove()
    assert sum(finished) == len(twice) and max(sizes) == (len(twice) if temperature else len(rows))
    assert (texts[: len(rows)] == texts[len(rows) :][::-1]) == (not temperature)


def test_another_generator_draws_another_text(tiny64):
    rows = [EditedRow(row) for row in rows_of(tiny64, ["gahfdfbdddc "] * 8)]
    decoding = Decoding(10, temperature=2.0, top_k=50, top_p=1.0)
    texts = generate(tiny64, rows, BARE, decoding, generators=[generator(0, i) for i in range(8)])
    same = generate(tiny64, rows, BARE, decoding, generators=[generator(0, 5) for _ in range(8)])
    assert len(set(texts)) > 4 and set(same) == {texts[5]}


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 99, 1.0), (0.7, 10, 0.9), (1.3, 6, 0.5), (0.1, 10, 0.9)]
)
def test_draws_follow_the_distribution_of_transformers_warpers(temperature, top_k, top_p):
    logits = 2 * torch.randn(1, 30, generator=torch.Generator().manual_seed(3))
    warpers = LogitsProcessorList(
        [TemperatureLogitsWarper(temperature), TopKLogitsWarper(min(top_k, 30)), TopPLogitsWarper(top_p)]
    )
    expected = warpers(torch.zeros(1, 1, dtype=torch.long), logits.clone()).softmax(-1)[0]
    n = 4000
    draw = torch.Generator().manual_seed(0)
    decoding = Decoding(1, temperature, top_k, top_p)
    drawn = generation._pick(logits.expand(n, -1), decoding, [draw] * n)
    frequency = drawn.bincount(minlength=30) / n
    assert not frequency[expected == 0].any()
    assert float((frequency - expected).abs().max()) < 4 * 0.5 / n**0.5


def test_sampling_without_generators_is_refused(tiny64):
    with pytest.raises(ValueError, match="one generator per row"):
        generate(tiny64, [EditedRow(Row((5, 6), (7,)))], BARE, Decoding(3, temperature=0.5))


@pytest.mark.parametrize("rule", ["all", "all-f2", "last", "f2+l1"])
@pytest.mark.parametrize("budget", [2048, 30])
def test_losses_are_the_likelihoods_of_the_completions_under_each_rows_edits(
    tiny64, mixed, reference_logits, hooks_of, rule, budget
):
    rows, banks = mixed
    found = losses(tiny64, rows, stack_of(banks, rule), budget=Budget(budget))
    for row, (nll, tokens, nll_eos, eos_tokens) in zip(rows, found, strict=True):
        ids = row.row.prompt + row.row.completion
        log_p = reference_logits(tiny64, ids, edits_of(row, banks, rule, len(ids))).log_softmax(-1)
        start = len(row.row.prompt)
        expected = [-float(log_p[start + k - 1, token]) for k, token in enumerate(row.row.completion)]
        assert tokens == len(row.row.completion) == 3 and eos_tokens == 1  # x, y, EOS
        assert (nll, nll_eos) == (pytest.approx(sum(expected), abs=1e-10), pytest.approx(expected[-1], abs=1e-10))
    assert len({round(loss.nll, 6) for loss in found}) == 12
    assert hooks_of(tiny64.model) == 0


def test_a_completion_without_an_end_has_no_loss_of_it(tiny64):
    (ended, cut) = losses(tiny64, [EditedRow(Row((5, 6), (7, 8, 0))), EditedRow(Row((5, 6), (7, 8)))], BARE)
    (lone,) = losses(tiny64, [EditedRow(Row((9, 6), (7, 8)))], BARE)
    assert ended.eos_tokens == 1 and ended.nll_eos == pytest.approx(ended.nll - cut.nll, abs=1e-10)
    assert (cut.nll_eos, cut.eos_tokens) == (lone.nll_eos, lone.eos_tokens) == (0.0, 0)


def test_losses_are_the_training_loss_times_the_tokens(tiny64, random_bank):
    collective, personal = random_bank(1, seed=1), random_bank(1, rank=3, seed=2)
    rows = rows_of(tiny64, PROMPTS, completion="an answer")
    stack = stack_of((collective, personal))
    found = losses(tiny64, [EditedRow(row, (0, 0)) for row in rows], stack)
    settings = TrainSettings(epochs=1, batch_size=len(rows), rate=1e-3)
    (result,) = train(tiny64, stack, [rows], [generator(0)], settings)
    tokens = sum(loss.tokens for loss in found)
    assert sum(loss.nll for loss in found) == pytest.approx(result.step_losses[0] * tokens, abs=1e-9)


def test_finished_rows_are_counted_as_they_finish(tiny64):
    rows = [EditedRow(row) for row in rows_of(tiny64, PROMPTS)]
    seen = []
    losses(tiny64, rows, BARE, budget=Budget(30), on_rows=seen.append)
    assert sum(seen) == 12 and len(seen) > 3
    seen.clear()
    generate(tiny64, rows, BARE, Decoding(2), token_budget=30, on_rows=seen.append)
    assert sum(seen) == 12 and len(seen) > 3


@pytest.mark.parametrize(
    ("layers", "edits", "message"),
    [
        (0, (0,), r"an edit or None for each layer of the stack, 0 here, got \(0,\)"),
        (2, (0,), r"an edit or None for each layer of the stack, 2 here, got \(0,\)"),
        (2, (0, 3), r"layer 1 of the stack has edits 0\.\.2, but a row takes number 3"),
        (2, (-1, None), r"layer 0 of the stack has edits 0\.\.0, but a row takes number -1"),
    ],
)
def test_a_row_that_asks_for_an_edit_that_is_not_there_is_refused(tiny64, mixed, hooks_of, layers, edits, message):
    stack = stack_of(mixed[1]) if layers else BARE
    row = EditedRow(Row((5,), (6,)), edits)
    with pytest.raises(ValueError, match=message):
        losses(tiny64, [row], stack)
    with pytest.raises(ValueError, match=message):
        generate(tiny64, [row], stack, GREEDY)
    assert hooks_of(tiny64.model) == 0


def test_a_row_that_names_no_edits_at_all_is_the_bases_own(tiny64, mixed):
    rows, banks = mixed
    bare = [EditedRow(row.row) for row in rows]
    assert generate(tiny64, bare, stack_of(banks), GREEDY) == generate(tiny64, bare, BARE, GREEDY)
    for (nll, *_), (expected, *_) in zip(
        losses(tiny64, bare, stack_of(banks)), losses(tiny64, bare, BARE), strict=True
    ):
        assert nll == pytest.approx(expected, abs=1e-12)
