"""What `ray start` calls before it starts (RAY_START_HOOK): no server for remote clients, which no option says."""

from typing import Any


def without_client_server(parameters: Any, head: bool) -> None:
    """Ray's parameters, changed in place."""
    parameters.ray_client_server_port = None
