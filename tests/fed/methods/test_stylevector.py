"""StyleVector: the direction against one computed by hand from transformers' own hidden states, and what it adds."""

import copy
from dataclasses import replace

import pytest
import torch

from fed import methods
from fed.answering.reader import Question
from fed.forward.batching import Row
from fed.methods import UserRows
from fed.settings.rules import SettingsError
from fed.settings.settings import Settings
from tests.fed.methods.test_perfit import settings  # noqa: F401

EOS, LAYER = 0, 2


@pytest.fixture
def make(settings, tiny64):  # noqa: F811
    options = {"method": "stylevector", "max_new_tokens": 5, "style_layer": LAYER, "style_strength": 1.0}
    return lambda **changes: methods.make(replace(settings, **(options | changes)), tiny64.skeleton)


def rows(count, seed, same_prompt=False):
    draw = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        ids = torch.randint(5, 90, (9,), generator=draw).tolist()
        made.append(Row((20, 21, 22) if same_prompt else tuple(ids[:4]), (*ids[4:], EOS)))
    return made


USERS = [UserRows("carol", rows(4, 1)), UserRows("alice", rows(2, 2)), UserRows("bob", rows(3, 3, same_prompt=True))]


def hidden(base, ids):
    other = copy.deepcopy(base.model)  # transformers leaves hooks of its own on a model that it reads states from
    with torch.no_grad():
        return other(input_ids=torch.tensor([list(ids)]), output_hidden_states=True).hidden_states[LAYER + 1][0, -1]


def greedy(base, prompt, count):
    """The base's own answer, a token at a time; its text is stripped, and cut at a line break."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            ids.append(int(base.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == EOS:
            break
    text = base.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip().split("\n")[0]
    return base.tokenizer(f" {text}")["input_ids"] if text else []


def test_the_direction_is_the_mean_difference_of_own_and_style_free_answers(make, tiny64):
    found = {one.user_id: one.tensors["style"] for one in make().train_private(tiny64, {}, USERS)}
    free = 0
    for user in USERS:
        differences = []
        for row in user.rows:
            answer = greedy(tiny64, row.prompt, 5)
            free += bool(answer)
            differences.append(
                hidden(tiny64, row.prompt + row.completion[:-1]) - hidden(tiny64, [*row.prompt, *answer])
            )
        torch.testing.assert_close(found[user.user_id], torch.stack(differences).mean(0), rtol=0, atol=1e-10)
    assert free > 4  # the base does answer


def test_a_users_vector_does_not_depend_on_who_else_is_hosted(make, tiny64):
    together = {one.user_id: one for one in make().train_private(tiny64, {}, USERS)}
    for user in USERS:
        (alone,) = make().train_private(tiny64, {}, [user])
        torch.testing.assert_close(alone.tensors["style"], together[user.user_id].tensors["style"], rtol=0, atol=1e-12)
        assert alone.result.steps == 0 and alone.result.error == ""


def test_a_completion_that_was_cut_has_no_end_to_leave_out(make, tiny64):
    cut = Row((5, 6), (7, 8, 9))
    found = make().directions(tiny64, [cut], [[]])
    expected = hidden(tiny64, (5, 6, 7, 8, 9)) - hidden(tiny64, (5, 6))
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("strength", [0.5, -2.0])
def test_alpha_times_s_is_added_at_its_block_where_answer_tokens_are_read_off(make, tiny64, hooks_of, strength):
    draw = torch.Generator().manual_seed(4)
    private = {name: {"style": torch.randn(32, generator=draw, dtype=torch.float64)} for name in ("zoe", "adam")}
    reader = make(style_strength=strength).reader(tiny64, {}, private)
    row = Row((5, 9, 20, 33), (7, 8, 12, EOS))
    ids = torch.tensor([row.prompt + row.completion])

    def logits(style):
        def add(_module, _inputs, output):
            h = output[0] if isinstance(output, tuple) else output
            h = h.clone()
            h[:, len(row.prompt) - 1 :] += strength * style
            return (h, *output[1:]) if isinstance(output, tuple) else h

        handle = tiny64.model.model.layers[LAYER].register_forward_hook(add)
        try:
            with torch.no_grad():
                return tiny64.model(input_ids=ids).logits[0].log_softmax(-1)
        finally:
            handle.remove()

    for name in (None, "zoe", "adam"):
        ((nll, tokens, *_),) = reader.losses([Question(row, False, name)])
        log_p = logits(private[name]["style"] if name else torch.zeros(32, dtype=torch.float64))
        expected = -sum(float(log_p[3 + k, token]) for k, token in enumerate(row.completion))
        assert tokens == 4 and nll == pytest.approx(expected, abs=1e-9)
    texts = reader.generate([Question(row, False, n) for n in (None, "zoe", "adam")], max_new_tokens=6, stop=None)
    assert len(set(texts)) > 1 and hooks_of(tiny64.model) == 0


def test_no_direction_at_all_changes_nothing(make, tiny64):
    reader = make().reader(tiny64, {}, {"zoe": {"style": torch.zeros(32, dtype=torch.float64)}})
    row = Row((5, 9), (7, EOS))
    (own, base) = reader.losses([Question(row, False, "zoe"), Question(row, False, None)])
    assert own == pytest.approx(base)


def test_the_layer_is_the_middle_block_unless_said_and_must_exist(make, settings):  # noqa: F811
    assert make(style_layer=-1).layer == 2 and make(style_layer=0).layer == 0
    assert make().private_shapes() == {"style": (32,)} and make().collective_shapes() == {}
    with pytest.raises(SettingsError, match=r"style-layer must lie in 0\.\.3 or be -1, got 4"):
        make(style_layer=4)
    with pytest.raises(SettingsError, match="style-layer must be a block's number"):
        Settings.parse({**settings.as_config(), "style-layer": -2})
