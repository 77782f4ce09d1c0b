"""Edits and adapters as maps, against the maps made: inner products, distances, the same whatever the axes."""

import math

import pytest
import torch

from fed.edits import maps

DRAW = torch.Generator().manual_seed(3)


def randn(*shape):
    return torch.randn(shape, generator=DRAW)


def edits(users=4, blocks=2, rank=3, size=10):
    R = [torch.linalg.qr(randn(blocks, size, rank)).Q.mT.contiguous() for _ in range(users)]
    return [{"R": r, "W": r + 0.1 * randn(blocks, rank, size), "b": randn(blocks, rank)} for r in R]


def adapters(users=4):
    def one():
        return {
            "q.lora_A.weight": randn(2, 6),
            "q.lora_B.weight": randn(5, 2),
            "v.lora_A.weight": randn(2, 6),
            "v.lora_B.weight": randn(3, 2),
        }

    return [one() for _ in range(users)]


def made_edit(edit):
    R, W, b = (edit[name].double() for name in ("R", "W", "b"))
    return torch.cat([(R.mT @ (W - R)).flatten(), (b.unsqueeze(-2) @ R).flatten()])


def made_adapter(adapter):
    wide = {name: tensor.double() for name, tensor in adapter.items()}
    return torch.cat([(wide[f"{m}.lora_B.weight"] @ wide[f"{m}.lora_A.weight"]).flatten() for m in "qv"])


FAMILIES = [
    (edits(), made_edit, maps.inner_products_of_edits, maps.distance_of_edits, maps.factors_of_edits),
    (adapters(), made_adapter, maps.inner_products_of_adapters, maps.distance_of_adapters, maps.factors_of_adapters),
]


@pytest.mark.parametrize(("users", "made", "products", "distance", "factors"), FAMILIES, ids=["edits", "adapters"])
def test_inner_products_distances_and_factors_are_those_of_the_maps_made(users, made, products, distance, factors):
    of_users = torch.stack([made(user) for user in users])
    torch.testing.assert_close(products(users), of_users @ of_users.mT)
    assert distance(users[0], users[1]) == pytest.approx(float((of_users[0] - of_users[1]).norm()), rel=1e-9)
    assert distance(users[0], users[0]) == pytest.approx(0, abs=1e-6)
    square = sum((place.left @ place.right).square().sum((1, 2)) for place in factors(users))
    torch.testing.assert_close(square, of_users.square().sum(1))


@pytest.mark.parametrize("number", [math.inf, math.nan, 1e200])
def test_a_distance_to_what_is_not_finite_or_overflows_is_infinite(number):
    one, other = edits(users=2)
    far = {name: tensor.double() * number for name, tensor in other.items()}
    assert maps.distance_of_edits(far, one) == math.inf
