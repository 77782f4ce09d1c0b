"""Hidden states read by a hook, against transformers' own."""

import copy

import pytest
import torch

from fed.forward.hidden_states import last_token

TEXTS = [(5, 9, 20), (7,), (30, 31, 32, 33, 34, 8), (5, 9)]


@pytest.mark.parametrize("budget", [1000, 6])
@pytest.mark.parametrize("layer", [0, 2])
def test_the_state_is_that_blocks_output_at_the_last_token_of_each_text(tiny64, hooks_of, layer, budget):
    found = last_token(tiny64, TEXTS, layer, token_budget=budget)
    other = copy.deepcopy(tiny64.model)  # transformers leaves hooks of its own on a model that it reads states from
    for text, h in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            states = other(input_ids=torch.tensor([text]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(h, states[layer + 1][0, -1], rtol=0, atol=1e-12)  # [0] is the embeddings
    assert found.shape == (4, 32) and hooks_of(tiny64.model) == 0


def test_the_model_is_left_clean_by_a_failure(tiny64, hooks_of):
    with pytest.raises(IndexError):
        last_token(tiny64, [(5, 10**6)], 1)
    assert hooks_of(tiny64.model) == 0
