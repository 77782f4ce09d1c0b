"""δ-vectors: a difference of two states at one token, by a history of one's own or of another's."""

import copy
import weakref
from dataclasses import replace

import pytest
import torch

from fed.exploration.delta_vectors import Context, delta_vectors, lenders
from fed.lamp.synthetic.users import make_user
from fed.lamp.tasks import get_task
from fed.prompts.retrieval import Okapi
from fed.prompts.wording import example, retrieval_query

TASK = get_task("LaMP_7")
USERS = [f"test-{n:04d}" for n in range(5)]
CONTEXT = Context(layer=2, retrieved=2, max_length=700, max_queries=3)


def shifts(base, users=USERS, context=CONTEXT, load=make_user, seed=0):
    return list(delta_vectors(base, TASK, users, load, context, seed=seed))


def test_a_vector_is_the_mean_difference_that_the_retrieved_history_makes_at_the_last_token(tiny64):
    other = copy.deepcopy(tiny64.model)  # transformers leaves hooks of its own on a model that it reads states from

    def state(text):
        ids = torch.tensor([tiny64.tokenizer(text)["input_ids"]])
        return other.model(ids, output_hidden_states=True).hidden_states[3][0, -1].detach()

    user = make_user(USERS[0])
    lender = make_user(lenders(USERS, 0)[USERS[0]])

    def by_hand(history):
        examples = [example(TASK, item) for item in history]
        differences = []
        for query in user.queries[:3]:
            best = Okapi(examples).top(retrieval_query(TASK, TASK.query_text(query)), 2)
            prompt = TASK.query_pair(query).prompt
            context = "\n".join(examples[i] for i in best) + "\n\n"
            differences.append(state(context + prompt) - state(prompt))
        return torch.stack(differences).mean(0)

    first = shifts(tiny64)[0]
    assert first.user_id == USERS[0] and first.queries == 3 and first.left_out == 0
    torch.testing.assert_close(first.own.double(), by_hand(user.profile), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(first.other.double(), by_hand(lender.profile), atol=1e-6, rtol=1e-5)
    assert not torch.allclose(first.own, first.other)


def test_every_user_lends_a_history_to_exactly_one_other():
    for seed in range(5):
        lender = lenders(USERS, seed)
        assert sorted(lender.values()) == USERS and all(user != other for user, other in lender.items())
    assert lenders(USERS, 0) != lenders(USERS, 1)
    with pytest.raises(ValueError, match="at least 2 users, got 1"):
        lenders(USERS[:1], 0)


def test_two_users_are_in_memory_at_a_time(tiny32):
    loaded = []

    def load(user_id):
        assert sum(user() is not None for user in loaded) < 2
        user = make_user(user_id)
        loaded.append(weakref.ref(user))
        return user

    for number, _ in enumerate(delta_vectors(tiny32, TASK, USERS, load, CONTEXT), 1):
        assert len(loaded) == 2 * number


def test_no_gold_and_no_answer_to_a_query_is_read(tiny32):
    def hidden(user_id):
        user = make_user(user_id)
        return replace(user, queries=tuple(replace(query, gold="x") for query in user.queries))

    assert all(torch.equal(a.own, b.own) for a, b in zip(shifts(tiny32), shifts(tiny32, load=hidden), strict=True))


def test_mistakes_are_told(tiny32):
    with pytest.raises(ValueError, match=r"the layer must lie in 0\.\.3, got 4"):
        shifts(tiny32, context=replace(CONTEXT, layer=4))
    with pytest.raises(ValueError, match="'test-0000' has none; leave the user out"):
        shifts(tiny32, load=lambda user_id: replace(make_user(user_id), queries=()))
