"""The base as it is: no tensor of a method's, and answers that are the base's own."""

import tomllib
from pathlib import Path

import pytest

from fed import methods
from fed.answering.reader import Question
from fed.forward.batching import Row
from fed.settings.settings import Settings

LAMP7 = Path(__file__).resolve().parents[3] / "sims" / "lamp7" / "pyproject.toml"


@pytest.fixture
def method(tiny64):
    config = tomllib.loads(LAMP7.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    settings = Settings.parse(config | {"method": "non-personalized", "temperature": 0.0})
    return methods.make(settings, tiny64.skeleton)


def test_nothing_is_federated_nothing_is_private_and_nothing_trains(method, tiny64):
    assert method.collective_shapes() == method.private_shapes() == method.initial_collective() == {}
    assert method.engine == "none" and method.drift({}) == 0.0
    with pytest.raises(NotImplementedError, match="non-personalized federates nothing"):
        method.train_collective(tiny64, {}, [], round_number=1)
    with pytest.raises(NotImplementedError, match="non-personalized has nothing private"):
        method.train_private(tiny64, {}, [])


def test_answers_and_losses_are_the_bases_own(method, tiny64, reference_logits, hooks_of):
    row = Row((5, 9, 20, 33), (7, 8, 0))
    reader, seen = method.reader(tiny64, {}, {}), []
    ((nll, tokens, *_),) = reader.losses([Question(row, False, None)], seen.append)
    ids = row.prompt + row.completion
    log_p = reference_logits(tiny64, ids, []).log_softmax(-1)
    assert tokens == 3 and seen == [1]
    assert nll == pytest.approx(-sum(float(log_p[3 + k, token]) for k, token in enumerate(row.completion)), abs=1e-10)
    (text,) = reader.generate([Question(row, False, None)], max_new_tokens=5, stop=None)
    ids = list(row.prompt)
    for _ in range(5):
        ids.append(int(reference_logits(tiny64, ids, [])[-1].argmax()))
        if ids[-1] == 0:
            break
    assert text == tiny64.tokenizer.decode(ids[4:], skip_special_tokens=True)
    assert hooks_of(tiny64.model) == 0


def test_a_question_for_a_tensor_that_is_not_there_is_refused(method, tiny64):
    reader = method.reader(tiny64, {}, {})
    with pytest.raises(ValueError, match="asks for the collective edit, but none is given"):
        reader.losses([Question(Row((5,), (7,)), True, None)])
    with pytest.raises(KeyError):
        reader.losses([Question(Row((5,), (7,)), False, "zoe")])
