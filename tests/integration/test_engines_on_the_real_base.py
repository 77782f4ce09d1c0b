"""Both engines on SmolLM2-135M and synthetic users' rows: one start, and curves within 3 % of each other."""

from __future__ import annotations

import pytest

from fed import base_model, pyreft_engine, training
from fed.base_model import BaseModel
from fed.batching import Row, generator, tokenize
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.loreft import EditBank, EditShape
from fed.positions import Positions
from fed.training import TrainSettings

pytest.importorskip("pyreft")


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return base_model.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def rows(base: BaseModel) -> list[Row]:
    """A synthetic user's paraphrase pairs, as stage 1 trains on them."""
    task = get_task("LaMP_7")
    corpus = open_corpus("synthetic", task, seed=0)
    queries = corpus.user(corpus.cohorts["others"][0]).queries
    return tokenize([task.query_pair(query) for query in queries], base.tokenizer, 128)


@pytest.mark.parametrize(("rate", "batch_size", "epochs"), [(0.003, 2, 1), (0.003, 4, 3)])
def test_pyreft_and_ours_on_the_real_base(
    base: BaseModel, rows: list[Row], rate: float, batch_size: int, epochs: int
) -> None:
    shape = EditShape((10, 16, 22), 8, base.skeleton.hidden_size)
    plan = TrainSettings(epochs=epochs, batch_size=batch_size, rate=rate)
    ours, theirs = (
        engine.train(
            base,
            EditBank.identity(shape, [generator(0, "edit")]),
            [rows],
            [generator(0, "order")],
            plan,
            Positions.parse("all"),
        )[0].step_losses
        for engine in (training, pyreft_engine)
    )
    assert len(ours) >= 6
    assert theirs[0] == pytest.approx(ours[0], rel=1e-5)
    assert theirs == pytest.approx(ours, rel=0.03)
    assert ours[-1] < 0.95 * ours[0]
