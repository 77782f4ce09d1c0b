"""Ray's actors that have died are replaced in Flower's own pool: a stand-in for Ray, whose actors die when told to."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import pytest

from server_strategy.grid import actors

flower = pytest.importorskip(actors._POOL)


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class Actor:
    """One that lives, or is dead, or has not started."""

    def __init__(self, state: str = "lives") -> None:
        self.state, self.killed = state, False
        self.__dict__["__ray_ready__"] = SimpleNamespace(remote=lambda: Reference(self))


class Reference:
    """What a call has given back: a value, an error, or nothing yet."""

    def __init__(self, of: Actor, raises: type[Exception] | None = None) -> None:
        self.of, self.raises = of, raises


class Ray:
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def get(self, reference):
        if reference.raises:
            raise reference.raises
        if reference.of.state == "dead":
            raise RayError
        return 0, "reply", "context"

    def wait(self, references, *, num_returns=1, timeout):
        done = [one for one in references if one.of.state != "not started"]
        return done, [one for one in references if one not in done]

    def kill(self, actor):
        actor.killed = True


@pytest.fixture
def pool_of(monkeypatch):
    """pool_of(actors, room=2, new="lives"): Flower's pool of these, on hosts with room for so many."""

    def make(*idle: Actor, room: int, new: str = "lives"):
        ray = Ray()
        pool = type("Pool", (flower.BasicActorPool,), {name: vars(flower.BasicActorPool)[name] for name in MENDED})
        module = SimpleNamespace(BasicActorPool=pool, ray=ray, pool_size_from_resources=lambda _: room)
        monkeypatch.setitem(sys.modules, actors._POOL, module)
        monkeypatch.setattr(flower, "ray", ray)
        warnings: list[str] = []
        actors.replace_dead_actors(warnings.append)
        actors.replace_dead_actors(warnings.append)  # a second run in this process
        made = pool.__new__(pool)
        made.client_resources, made._future_to_actor = {}, {}
        made.pool, made.num_actors, made.create_actor_fn = list(idle), len(idle), lambda: Actor(new)
        return made, warnings

    return make


MENDED = actors._MENDED


def asked(pool, raises=None):
    """A message through the pool, as Flower's `process_message` passes it on: "reply", or what failed."""
    future = pool.submit(lambda actor, *_: Reference(actor, raises), (None, None, None, None))
    try:
        return pool.fetch_result_and_return_actor_to_pool(future)[0]
    except RayError as error:
        pool.add_actor_back_to_pool(future)
        return type(error)


def test_flower_s_pool_still_is_what_is_mended():
    assert set(MENDED) <= vars(flower.BasicActorPool).keys()


def test_where_there_is_room_a_new_actor_takes_the_place_of_a_dead_one(pool_of):
    alive, dead = Actor(), Actor("dead")
    pool, warnings = pool_of(alive, dead, room=2)
    assert asked(pool) is RayError and dead.killed and not alive.killed
    assert len(pool.pool) == pool.num_actors == 2 and alive in pool.pool and dead not in pool.pool
    assert asked(pool) == "reply"
    assert warnings == [
        "actors of the simulation that have died: 1, all of them replaced, going on: 2; users whose message was lost "
        "are asked again"
    ]


def test_a_host_that_dies_takes_its_idle_actors_with_it_and_the_pool_shrinks(pool_of):
    alive = Actor()
    pool, warnings = pool_of(alive, Actor("dead"), Actor("dead"), room=1)
    assert asked(pool) is RayError
    assert pool.pool == [alive] and pool.num_actors == 1
    assert "actors of the simulation that have died: 2, 0 of them replaced, going on: 1" in warnings[0]
    assert [asked(pool) for _ in range(3)] == ["reply"] * 3


def test_a_new_actor_that_never_starts_is_given_up(pool_of, monkeypatch):
    monkeypatch.setattr(actors, "START", 0.05)
    pool, _ = pool_of(Actor(), Actor("dead"), room=2, new="not started")
    assert asked(pool) is RayError and pool.num_actors == len(pool.pool) == 1


def test_a_message_waits_for_an_actor_where_there_are_fewer_than_threads(pool_of):
    busy = Actor()
    pool, _ = pool_of(busy, room=1)
    future = pool.submit(lambda actor, *_: Reference(actor), (None, None, None, None))
    answers: list[object] = []
    second = threading.Thread(target=lambda: answers.append(asked(pool)))
    second.start()
    second.join(0.2)
    assert second.is_alive() and not answers
    pool.fetch_result_and_return_actor_to_pool(future)
    second.join(10)
    assert answers == ["reply"]


def test_where_nobody_is_left_a_message_fails_and_says_so(pool_of):
    pool, _ = pool_of(Actor("dead"), room=0)
    assert asked(pool) is RayError and pool.num_actors == 0
    with pytest.raises(RuntimeError, match="no actor of the simulation is left"):
        asked(pool)


def test_an_error_of_the_client_app_s_own_and_a_reply_that_is_lost_replace_nobody(pool_of):
    only = Actor()
    for error in (RayTaskError, RayError):
        pool, warnings = pool_of(only, room=1)
        assert asked(pool, raises=error) is error
        assert pool.pool == [only] and pool.num_actors == 1 and not warnings and not only.killed
