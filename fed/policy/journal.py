"""What a device remembers of the messages that it accepted: when they came, and what settings their run began with.

    <vault>/journal.json    {"accepted": [seconds, …], "runs": {run: {"settings": digest, "seconds": …}}}     mode 0600

It names no user and holds no text. Every message is a process of its own, so it is on disk, and held by a lock while it
is changed. A journal that cannot be read accepts nothing: a server must not gain by spoiling it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fed.atomic_write import write_text
from fed.policy.policy import Policy, PolicyError

JOURNAL, LOCK = "journal.json", "journal.lock"
HOUR, DAY = 3600.0, 86400.0
_MOST_RUNS = 256  # remembered; the latest


class Journal:
    """The accepted messages of one device.

    Args:
        folder: the device's vault.
        policy: how many messages it accepts.
    """

    def __init__(self, folder: Path, policy: Policy) -> None:
        self._folder, self._policy = folder, policy

    def enter(self, run: str, settings: str, now: float) -> None:
        """Accept a message and remember it. Raises PolicyError where the device has had enough, or the run changed.

        Args:
            run: Flower's number of the run.
            settings: the run's settings as the message brings them.
            now: seconds since the epoch. A message of the future (a clock that was set back) counts as one of today.
        """
        digest = hashlib.sha256(settings.encode()).hexdigest()
        with self._locked():
            accepted, runs = self._read()
            began = runs.get(run)
            if began and began["settings"] != digest:
                raise PolicyError("a run's settings must stay those of its first message")
            for seconds, most, words in (
                (DAY, self._policy.messages_a_day, "a day"),
                (HOUR, self._policy.messages_an_hour, "an hour"),
            ):
                if sum(now - then < seconds for then in accepted) >= most:
                    raise PolicyError(f"at most {most} messages are accepted {words}")
            accepted = [then for then in accepted if now - then < DAY] + [now]
            runs[run] = {"settings": digest, "seconds": now}
            latest = sorted(runs, key=lambda one: float(runs[one]["seconds"]))[-_MOST_RUNS:]
            content = {"accepted": accepted, "runs": {one: runs[one] for one in latest}}
            write_text(self._folder / JOURNAL, json.dumps(content) + "\n", mode=0o600)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._folder / LOCK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> tuple[list[float], dict[str, dict[str, str | float]]]:
        try:
            content = json.loads((self._folder / JOURNAL).read_text(encoding="utf-8"))
            runs: dict[str, dict[str, str | float]] = {
                str(run): {"settings": str(began["settings"]), "seconds": float(began["seconds"])}
                for run, began in content["runs"].items()
            }
            return [float(then) for then in content["accepted"]], runs
        except FileNotFoundError:
            return [], {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise PolicyError("the journal of messages must be readable; remove it to begin a new one") from None
