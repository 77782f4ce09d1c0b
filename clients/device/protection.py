"""The one place through which every message of a device passes, before anything of the user's is read, and out again.

    admit      whom the message is for, the run's settings, its base model, the edits that the message brings or names,
               then the journal
    let_out    a reply of the numbers that `fed.policy.leaving` lists, each as the policy lets it out

The rules are the device's own (`fed.policy`): node config `policy`, strict where there is none. Simulated
nodes are open.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from functools import cached_property

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from clients.device.node_config import NodeConfig
from clients.edits.received import tensors_in
from clients.messages import put_error, users_of
from fed import methods
from fed.base import facts as base_facts
from fed.base.facts import Facts
from fed.communication.on_device import OnDevice
from fed.methods import Method
from fed.policy import leaving
from fed.policy.edit_rules import check_edit
from fed.policy.hidden_norms import hidden_norms
from fed.policy.journal import Journal
from fed.policy.policy import PolicyError
from fed.policy.run_rules import check_base, check_settings, check_source
from fed.privacy.vault import Vault
from fed.resuming.of_run import OfRun
from fed.settings.settings import Settings


class Protection:
    """What one message meets on its way in and its reply on its way out.

    Args:
        config: the node's own, the device's policy in it.
        settings: the run's, as the server sent them.
        run_id: Flower's number of the run.
    """

    def __init__(self, config: NodeConfig, settings: Settings, run_id: int) -> None:
        self._config, self._sent, self._run = config, settings, str(run_id)
        self._settings = replace(settings, base_model=config.base_model) if config.base_model else settings
        self._policy = config.policy

    def admit(self, message: Message) -> None:
        """Nothing where the device accepts the message; nothing of the user's has been read then.

        Raises:
            PolicyError: it breaks one of the device's rules.
            ValueError: the base model, or the edit that it names, is not there.
        """
        if self._policy.open:
            return
        config = self._config
        # A user named twice would be answered twice: several edits tried, and one message counted.
        if "host" in message.content.config_records and users_of(message) != [config.user_id]:
            raise PolicyError("a message must be for the device's own user, named once")
        own_history, own_base = config.history is not None, config.base_model is not None
        check_settings(self._policy, self._settings, own_history=own_history, own_base=own_base)
        check_base(self._policy, self._settings, self._facts)
        self._check_edits(message)
        assert config.vault is not None  # a device has one
        Journal(config.vault, self._policy).enter(self._run, self._sent.as_json(), time.time())

    def _check_edits(self, message: Message) -> None:
        """Those in the message, and the one that it says is in the vault, which may be older than the policy."""
        method = self._method
        edits = list(tensors_in(message, method, self._narrow(method)))
        for record in message.content.config_records.values():
            if "collective" in record and self._config.vault is not None:
                edits.append(Vault(self._config.vault).read_collective(str(record["collective"])))
        for edit in filter(None, edits):
            edit = method.whole(edit)  # with what the run's seed draws, as rows will meet it
            check_edit(self._policy, edit, self._settings.edited_layers(self._facts.skeleton.layers), self._norms)

    def _narrow(self, method: Method) -> OnDevice | None:
        """The broadcasts that the user has, which are the server's and none of the user's texts."""
        assert self._config.vault is not None
        vault = Vault(self._config.vault, self._config.secret)
        of_run = OfRun(vault, self._sent.run_folder(int(self._run)).name, "", {})
        return OnDevice.of(of_run, method.collective_shapes(), self._settings)

    @cached_property
    def _facts(self) -> Facts:
        s = self._settings
        check_source(self._policy, s.base_source)
        return base_facts.facts(s.base_source, device=s.device, dtype=s.dtype)

    @property
    def _method(self) -> Method:
        return methods.make(self._settings, self._facts.skeleton)

    @cached_property
    def _norms(self) -> tuple[float, ...]:
        s = self._settings
        return hidden_norms(s.base_source, self._facts.fingerprint, device=s.device, dtype=s.dtype)

    def let_out(self, message: Message, reply: RecordDict) -> RecordDict:
        """What of a reply leaves the device: what `fed.policy.leaving.LEAVES` lists, and bare rules."""
        if self._policy.open:
            return reply
        kind = message.metadata.message_type
        left = RecordDict()
        for key, config in reply.config_records.items():
            place, _, name = key.rpartition("/")
            if name == "error":
                put_error(
                    left, int(place), str(config["reason"])
                )  # a bare rule: a device's `put_failure` writes no more
                continue
            fields = {field: value for field, value in config.items() if leaving.leaving_of(kind, f"{name}/{field}")}
            if "users" in fields:
                fields["users"] = self._sizes(str(fields["users"]))
            left[key] = ConfigRecord(fields)
        for key, metrics in reply.metric_records.items():
            place, _, name = key.rpartition("/")
            values = {field: value for field, value in metrics.items() if isinstance(value, int | float)}
            if kind == "evaluate":
                left[key] = MetricRecord(dict(leaving.test_sums(self._policy, values)))
                continue
            numbers = leaving.training_numbers(self._policy, kind, values)
            edit = reply.array_records.get(f"{place}/arrays")
            if edit is not None and not numbers.get("num-examples"):
                put_error(left, int(place), f"policy: an edit must be trained on {self._policy.min_rows} rows or more")
                continue
            if edit is not None and leaving.leaving_of(kind, "arrays/edit"):
                left[f"{place}/arrays"] = edit
            left[key] = MetricRecord(dict(numbers))
        return left

    def _sizes(self, users: str) -> str:
        """The greeting's counts as they leave: {stage: [[user, count, …], …]}."""
        sizes = {
            stage: [[user, *(leaving.counted(self._policy, count) for count in counts)] for user, *counts in of_stage]
            for stage, of_stage in json.loads(users).items()
        }
        return json.dumps(sizes)
