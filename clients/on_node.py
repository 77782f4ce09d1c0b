"""What every message passes on its way to its handler: the device's rules, the node, the vault's lock, errors told."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps

from flwr.app import Context, Message, RecordDict

from clients import messages as host
from clients.device.node_config import NodeConfig
from clients.device.protection import Protection
from clients.messages import bundled
from clients.node import Node
from fed.settings.rules import SettingsError
from fed.settings.settings import Settings

Handler = Callable[[Message, Node], RecordDict]


def on_node(handler: Handler) -> Callable[[Message, Context], Message]:
    """Build the node for a message; a broken rule becomes an error reply, and the node stays connected.

    A device says all of it in its own log and the bare rule to the server; of a simulation the operator sees all.
    What a device's policy does not accept is refused before the node is built, and what it does not let out stays.
    """

    @wraps(handler)
    def handle(message: Message, context: Context) -> Message:
        device = "partition-id" not in context.node_config
        began = time.time()
        try:
            config = NodeConfig.parse(context.node_config)
            settings = Settings.parse(context.run_config)
            if config.device and settings.stage1 == "pooled":
                raise SettingsError("stage1 must be 'federated' on devices, whose rows never leave them, got 'pooled'")
            protection = Protection(config, settings, context.run_id)
            protection.admit(message)  # before anything of the user's is read, as a Node does
            node = Node(settings, config, context.run_id)
            with node.of_run.held():
                content = bundled(protection.let_out(message, handler(message, node)))
            if node.is_simulated:
                host.put_timing(content, began, time.time())
            return Message(content, reply_to=message)
        except (ValueError, OSError) as error:
            return host.refuse(message, error, device=device)
        except Exception as error:  # a defect; its text could hold anything, and Flower would send it on
            if not device:
                raise
            host.print_defect()
            return host.refuse(message, error, device=True)

    return handle
