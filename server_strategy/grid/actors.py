"""In a simulation: Ray's actors that have died are replaced.

Flower's pool takes a dead actor back, and every later message that it is given fails. The ServerApp of a simulation
runs in the process that holds the pool, so it can be mended from here; anywhere else nothing is done.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_POOL = "flwr.simulation.ray_transport.ray_actor"  # loaded where Ray's actors are, and nowhere else


def replace_dead_actors(warn: Callable[[str], None]) -> None:
    """From now on a new actor takes the place of one that died; the message that it had still fails.

    Args:
        warn: called with a line about each.
    """
    module: Any = sys.modules.get(_POOL)
    if module is None:
        return
    pool, died = module.BasicActorPool, module.ray.exceptions.RayActorError
    fetch = getattr(pool, "_fetch_of_flower", pool.fetch_result_and_return_actor_to_pool)

    def fetch_or_replace(self: Any, future: Any) -> Any:
        try:
            return fetch(self, future)
        except died:
            warn("an actor of the simulation has died; a new one takes its place, and its users are asked again")
            self._future_to_actor[future] = self.create_actor_fn()  # what Flower takes back next
            raise

    pool._fetch_of_flower = fetch
    pool.fetch_result_and_return_actor_to_pool = fetch_or_replace
