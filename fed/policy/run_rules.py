"""Whether a run's settings, and the base model that it would run on, are within a device's rules.

Decided by the settings alone and by facts of the base, before any text of the user's is read.
"""

from __future__ import annotations

from fed.base.facts import Facts
from fed.base.sources import EMBEDDED, is_here
from fed.policy.policy import ZERO_IS_ALL, Policy, PolicyError
from fed.settings.rules import key_of
from fed.settings.settings import Settings


def check_settings(policy: Policy, settings: Settings, *, own_history: bool, own_base: bool) -> None:
    """Raises PolicyError at the first setting that the device does not accept; looks at nothing but the settings.

    Args:
        own_history: whether the device has a history of its own, so that the run's `data` is not touched.
        own_base: whether the device itself names the base model.
    """
    if policy.open:
        return
    config = settings.as_config()
    # What the run would have the device touch
    if not own_history and not policy.data:
        raise PolicyError("the device must have a history of its own, for it does not read the run's data")
    if not own_base and not policy.run_base and settings.base_model != EMBEDDED:
        raise PolicyError("base-model must be named by the device itself, or be 'embedded'", repr(settings.base_model))
    # What it would have it do
    for key, accepted in (
        ("task", policy.tasks),
        ("method", policy.methods),
        ("dtype", policy.dtypes),
        ("wire-dtype", policy.wire_dtypes),
        ("prompt-format", policy.prompt_formats),
    ):
        if config[key] not in accepted:
            raise PolicyError(f"{key} must be one of {', '.join(accepted)}", repr(config[key]))
    for form in prompt_forms(settings):
        if form not in policy.prompts:
            raise PolicyError(f"prompts must be of the forms {', '.join(policy.prompts)}", repr(form))
    # How much of it
    for key, numbers in policy.ranges.items():
        value = config[key]
        if key == "layers" or (key in ZERO_IS_ALL and value == 0):
            continue  # layers: once the base's blocks are known
        if not numbers.has(float(str(value))):
            zero = "0 or " if key in ZERO_IS_ALL else ""
            raise PolicyError(f"{key} must be {zero}{numbers}", str(value))


def check_source(policy: Policy, source: str) -> None:
    """Raises PolicyError where the base model would have to be fetched and the device fetches none."""
    if not policy.open and not policy.hub and not is_here(source):
        raise PolicyError("base-model must be on the device already, for it fetches none from a hub", repr(source))


def prompt_forms(settings: Settings) -> list[str]:
    """What the run's rows look like, by the names of `fed.policy.policy.PROMPTS`."""
    forms = [name for name, used in (("retrieved", settings.retrieved), ("profile", settings.profile)) if used]
    forms += ["pairs"] if settings.history_rows == "pairs" else []
    return forms or ["plain"]


def check_base(policy: Policy, settings: Settings, facts: Facts) -> None:
    """Raises PolicyError unless the base is accepted and the edits are few and narrow enough for it."""
    if policy.open:
        return
    if policy.bases and facts.fingerprint not in policy.bases:
        raise PolicyError("the base model must be one that the device accepts", facts.fingerprint)
    skeleton = facts.skeleton
    blocks = len(settings.edited_layers(skeleton.layers))
    if "layers" in policy.ranges and not policy.ranges["layers"].has(blocks):
        raise PolicyError(f"layers must name {policy.ranges['layers']} blocks", str(blocks))
    most = int(policy.rank_share * skeleton.hidden_size)
    ranks = {name: getattr(settings, name) for name in ("stage1_rank", "stage2_rank")}
    if settings.average == "exact":
        ranks["exact_rank"] = settings.exact_rank or skeleton.hidden_size
    for name, rank in ranks.items():
        if rank > most:
            raise PolicyError(f"{key_of(name)} must be at most {most} for this base model", str(rank))
