"""How many messages a device accepts, and that a run stays the run that it began as."""

import stat

import pytest

from fed.policy.journal import JOURNAL, Journal
from fed.policy.policy import Policy, PolicyError

NOW = 1_000_000.0


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "vault", Policy(messages_a_day=5, messages_an_hour=3))


def test_an_hour_and_a_day_take_so_many_messages_and_no_more(journal):
    for minute in range(3):
        journal.enter("7", "{}", NOW + 60 * minute)
    with pytest.raises(PolicyError, match="at most 3 messages are accepted an hour"):
        journal.enter("7", "{}", NOW + 3599)
    journal.enter("7", "{}", NOW + 3601)
    journal.enter("8", "{}", NOW + 7201)
    with pytest.raises(PolicyError, match="at most 5 messages are accepted a day"):
        journal.enter("8", "{}", NOW + 40_000)
    journal.enter("8", "{}", NOW + 86_401)


def test_a_clock_that_was_set_back_gives_no_messages_back(journal):
    for _ in range(3):
        journal.enter("7", "{}", NOW)
    with pytest.raises(PolicyError, match="an hour"):
        journal.enter("7", "{}", NOW - 10 * 86_400)


def test_a_run_s_settings_are_those_of_its_first_message(journal):
    journal.enter("7", '{"max-items": 8}', NOW)
    with pytest.raises(PolicyError, match="must stay those of its first message"):
        journal.enter("7", '{"max-items": 12}', NOW)
    journal.enter("9", '{"max-items": 12}', NOW)  # another run
    journal.enter("7", '{"max-items": 8}', NOW)


def test_the_journal_is_the_owner_s_alone_and_a_spoilt_one_accepts_nothing(journal, tmp_path):
    journal.enter("7", "{}", NOW)
    file = tmp_path / "vault" / JOURNAL
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for spoilt in ("", "[]", '{"accepted": 3, "runs": {}}', '{"accepted": [], "runs": {"7": {}}}'):
        file.write_text(spoilt)
        with pytest.raises(PolicyError, match="must be readable"):
            journal.enter("7", "{}", NOW)
    file.unlink()
    journal.enter("7", "{}", NOW)
