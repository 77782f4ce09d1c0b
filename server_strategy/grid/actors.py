"""In a simulation: Ray's actors that have died are replaced, as far as the hosts that are left have room for them.

Flower's pool takes a dead actor back, and every later message that it is given fails. The ServerApp of a simulation
runs in the process that holds the pool, so it can be mended from here; anywhere else nothing is done. Where a host of
a Ray cluster dies, all its actors do, those without a message too, and a new one may never start: so all idle actors
are asked for a sign of life, and one that does not start in time is given up.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

_POOL = "flwr.simulation.ray_transport.ray_actor"  # loaded where Ray's actors are, and nowhere else
_MENDED = ("submit", "fetch_result_and_return_actor_to_pool", "add_actor_back_to_pool")
SIGN_OF_LIFE = 10.0  # seconds that an actor without a message has to answer
START = 60.0  # seconds that a new actor has to start; Ray takes half a minute to miss a host
_LOCK = threading.Lock()  # one thread mends at a time


def replace_dead_actors(warn: Callable[[str], None]) -> None:
    """From now on a new actor takes the place of one that died; the message that it had still fails.

    Promise: a host that dies takes nothing with it but the messages that it had
    (tests/sims/test_cluster.py, by night; tests/server_strategy/grid/test_actors.py).

    Args:
        warn: called with a line about each.
    """
    module: Any = sys.modules.get(_POOL)
    if module is None:
        return
    pool, errors = module.BasicActorPool, module.ray.exceptions
    if "_of_flower" not in vars(pool):  # a second run in this process mends Flower's own again
        pool._of_flower = {name: vars(pool)[name] for name in _MENDED}
    of_flower = pool._of_flower

    def submit(self: Any, actor_fn: Any, job: Any) -> Any:
        while self.num_actors:  # Flower has as many threads as there were actors, so one may have to wait
            with suppress(IndexError):
                return of_flower["submit"](self, actor_fn, job)
            time.sleep(0.05)
        raise RuntimeError("no actor of the simulation is left: all hosts have died, or have no room for another")

    def fetch(self: Any, future: Any) -> Any:
        try:
            return of_flower["fetch_result_and_return_actor_to_pool"](self, future)
        except errors.RayTaskError:  # the ClientApp's own error
            raise
        except errors.RayError:
            with _LOCK:
                self._future_to_actor[future] = _mended(module, self, self._future_to_actor[future], warn)
            raise

    def take_back(self: Any, future: Any) -> None:
        if self._future_to_actor[future] is None:
            del self._future_to_actor[future]
        else:
            of_flower["add_actor_back_to_pool"](self, future)

    pool.submit, pool.fetch_result_and_return_actor_to_pool, pool.add_actor_back_to_pool = submit, fetch, take_back


def _mended(module: Any, pool: Any, suspect: Any, warn: Callable[[str], None]) -> Any:
    """What takes the place of an actor whose message was lost; None where there is no room for another.

    The idle actors that are dead as well are replaced in the pool.
    """
    idle = []
    with suppress(IndexError):
        while True:
            idle.append(pool.pool.pop())
    lives = _living(module.ray, [suspect, *idle])
    pool.pool += [actor for actor in idle if actor in lives]
    dead = [actor for actor in (suspect, *idle) if actor not in lives]
    for actor in dead:
        with suppress(Exception):  # one that is cut off, and not dead, would hold what the new one needs
            module.ray.kill(actor)
    replaced: list[Any] = []
    for _ in dead:
        actor = _started(module, pool)
        if actor is None:
            pool.num_actors -= 1
        else:
            replaced.append(actor)
    if dead:
        here = "all of them replaced" if len(replaced) == len(dead) else f"{len(replaced)} of them replaced"
        warn(
            f"actors of the simulation that have died: {len(dead)}, {here}, going on: {pool.num_actors}; "
            "users whose message was lost are asked again"
        )
    if suspect in lives:
        pool.pool += replaced
        return suspect
    pool.pool += replaced[1:]
    return replaced[0] if replaced else None


def _living(ray: Any, actors: Sequence[Any]) -> list[Any]:
    """Those of the actors, none of which has a message, that give a sign of life."""
    asked = {actor.__ray_ready__.remote(): actor for actor in actors}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=SIGN_OF_LIFE)
    return [asked[answer] for answer in answered if _is_well(ray, answer)]


def _started(module: Any, pool: Any) -> Any:
    """A new actor that has started; None where none did, or where the hosts that are left have no room."""
    actor = pool.create_actor_fn()
    answer = actor.__ray_ready__.remote()
    deadline = time.monotonic() + START
    while time.monotonic() < deadline and _room(module, pool) >= pool.num_actors:
        if module.ray.wait([answer], timeout=1.0)[0]:
            return actor if _is_well(module.ray, answer) else None
    with suppress(Exception):
        module.ray.kill(actor)
    return None


def _is_well(ray: Any, answer: Any) -> bool:
    try:
        ray.get(answer)
    except ray.exceptions.RayError:
        return False
    return True


def _room(module: Any, pool: Any) -> int:
    """How many actors fit on the hosts that Ray knows to be alive."""
    try:
        return int(module.pool_size_from_resources(pool.client_resources))
    except ValueError:  # none, in Flower's words
        return 0
