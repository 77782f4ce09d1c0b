"""The node config: what a SuperNode is told where it runs (`flower-supernode --node-config '…'`), checked.

A device has `user-id` and, of its own, `history`, `base-model`, `vault`, the vault's secret and `policy`, the file of
its own rules; a simulated SuperNode has `partition-id` and `num-partitions`, which Flower sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fed.policy.policy import OPEN, STRICT, Policy, PolicyError
from fed.privacy.sealed import Secret

DEVICE_KEYS = ("user-id", "history", "base-model", "vault", "vault-key-file", "vault-passphrase-file", "policy")
SIMULATION_KEYS = ("partition-id", "num-partitions")


class NodeConfigError(ValueError):
    """A node config key breaks its rule.

    Attributes:
        public: the rule without the value, for the server's eyes.
    """

    def __init__(self, rule: str, got: str = "", fix: str = "") -> None:
        super().__init__(f"node config: {rule}{got and f'; got {got}'}{fix and f'; {fix}'}")
        self.public = f"node config: {rule}"


@dataclass(frozen=True)
class NodeConfig:
    """The keys, checked; None where a device leaves one out.

    Attributes:
        part: which of the simulated nodes this is, from 0 on.
        parts: how many simulated nodes there are; 0 on a device.
        policy: what a run may ask of this node; a device's strict, where it has no file of its own rules.
    """

    part: int = 0
    parts: int = 0
    user_id: str | None = None
    history: Path | None = None
    base_model: str | None = None
    vault: Path | None = None
    secret: Secret | None = None
    policy: Policy = OPEN

    @classmethod
    def parse(cls, config: Mapping[str, object]) -> NodeConfig:
        """Check a node config. Raises NodeConfigError at the first key that breaks a rule."""
        known = ", ".join((*DEVICE_KEYS, *SIMULATION_KEYS))
        for key in config:
            if key not in DEVICE_KEYS + SIMULATION_KEYS:
                raise NodeConfigError(f"every key must be one of {known}", repr(key), "correct it")
        if "user-id" not in config:
            return cls._simulated(config)
        texts = {}
        for key in DEVICE_KEYS:
            value = config.get(key)
            # Flower reads user-id=42 as a number; as an id it is as good as a text.
            if key == "user-id" and isinstance(value, int) and not isinstance(value, bool):
                value = str(value)
            if key in config and (not isinstance(value, str) or not value.strip()):
                raise NodeConfigError(f"{key} must be a text that is not empty", repr(value), f'write {key}="…"')
            texts[key] = value if isinstance(value, str) else None
        if not texts["vault"]:
            raise NodeConfigError("a device needs a vault, the folder of its private tensors", "none", 'add vault="…"')
        return cls(
            user_id=texts["user-id"],
            history=_path("history", texts["history"]),
            base_model=texts["base-model"],
            vault=_path("vault", texts["vault"]),
            secret=_secret(texts),
            policy=_policy(_path("policy", texts["policy"])),
        )

    @classmethod
    def _simulated(cls, config: Mapping[str, object]) -> NodeConfig:
        alone = sorted(set(config) & set(DEVICE_KEYS) - {"vault"})
        if alone or not set(SIMULATION_KEYS) <= set(config):
            raise NodeConfigError("a device needs a user-id", ", ".join(config) or "nothing", 'add user-id="…"')
        part, parts = (int(str(config[key])) for key in SIMULATION_KEYS)
        vault = config.get("vault")
        return cls(part, parts, vault=Path(str(vault)) if vault else None)

    @property
    def device(self) -> bool:
        """Whether this is a real device, whose files and texts are nobody else's business."""
        return self.user_id is not None


def _path(key: str, text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise NodeConfigError(f"{key} must be an absolute path", repr(text), "a SuperNode has no folder of its own")
    return path


def _policy(path: Path | None) -> Policy:
    if path is None:
        return STRICT
    try:
        return Policy.read(path)
    except PolicyError as error:
        raise NodeConfigError("the policy must be a readable TOML file of rules", str(error)) from None


def _secret(texts: Mapping[str, str | None]) -> Secret | None:
    key, phrase = (
        _path("vault-key-file", texts["vault-key-file"]),
        _path("vault-passphrase-file", texts["vault-passphrase-file"]),
    )
    if key and phrase:
        raise NodeConfigError("vault-key-file and vault-passphrase-file exclude each other", "both", "give one")
    try:
        if key:
            return Secret.from_key_file(key)
        return Secret.from_passphrase_file(phrase) if phrase else None
    except ValueError as error:
        raise NodeConfigError("the vault's secret must be readable and private", str(error)) from None
