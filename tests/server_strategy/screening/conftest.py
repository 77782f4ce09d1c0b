"""Settings of a run on the four canned devices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fed.settings.settings import Settings
from server_strategy.report import page, report
from tests.server_strategy.screening.canned import FOUR


@pytest.fixture
def four(settings, monkeypatch) -> Callable[..., Settings]:
    """four(…) -> settings of a run on the four devices, whose page is not drawn: it takes twenty times as long."""
    monkeypatch.setattr(page, "write_page", lambda content, path: None)
    monkeypatch.setattr(report, "git_commit", lambda: "unknown")
    return lambda **changes: settings(**{**FOUR, "fraction": 1.0, "max_items": 0, **changes})
