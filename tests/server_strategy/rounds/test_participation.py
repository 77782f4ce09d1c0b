"""Who takes part in a round to its end: drawn by seed, round and user alone, and the round's simulated length."""

from __future__ import annotations

import pytest

from server_strategy.rounds.participation import Devices

USERS = {f"user-{n:03d}": 8 + n % 5 for n in range(100)}


@pytest.fixture
def devices(settings):
    """devices(drop_rate=0.3, …) -> the model for a hundred users."""

    def make(**changes):
        return Devices(settings(**changes), USERS)

    return make


def test_a_run_that_asks_for_nothing_models_nothing_and_draws_as_before(devices):
    plain = devices()
    assert not plain.modelled and plain.fraction == plain.settings.fraction


def test_users_drop_out_as_often_as_asked_by_seed_and_round_alone(devices):
    model, again, other = devices(drop_rate=0.3), devices(drop_rate=0.3), devices(drop_rate=0.3, seed=1)
    rounds = [model.attend(list(USERS), n).dropped for n in range(1, 41)]
    assert 0.27 < sum(map(len, rounds)) / 4000 < 0.33
    assert rounds == [again.attend(sorted(USERS, reverse=True), n).dropped[::-1] for n in range(1, 41)]
    assert rounds[0] != rounds[1] and rounds[0] != other.attend(list(USERS), 1).dropped
    assert rounds[0] != model.attend(list(USERS), 1, 1).dropped  # a round that is repeated draws anew
    some = model.attend(list(USERS)[:50], 1).dropped  # whoever else is asked
    assert some == [user for user in rounds[0] if user in list(USERS)[:50]]


def test_a_device_has_its_pace_and_who_comes_after_the_deadline_is_late(devices):
    model = devices(slow_rate=2.0, round_deadline=3.0, fraction=1.0, local_epochs=2)
    attendance = model.attend(list(USERS), 1)
    # steps = epochs × batches of 4 rows: 2 × 2 or 2 × 3
    arrivals = {user: model.pace(user) * 2 * -(-rows // 4) for user, rows in USERS.items()}
    assert {*attendance.late} == {user for user, at in arrivals.items() if at > 3.0} and attendance.late
    assert {*attendance.present} == {user for user, at in arrivals.items() if at <= 3.0} and attendance.present
    assert min(map(model.pace, USERS)) >= 0.0 and 1.8 < max(map(model.pace, USERS)) < 2.0
    assert attendance.seconds == 3.0  # somebody is missing until then
    assert devices(slow_rate=2.0, fraction=1.0, local_epochs=2).attend(list(USERS), 1).seconds == max(arrivals.values())


def test_of_more_users_than_a_round_needs_the_first_to_arrive_are_averaged(devices):
    model = devices(slow_rate=1.0, fraction=0.2, over_selection=1.3)
    assert model.needed == 20 and int(100 * model.fraction) == 26
    drawn = list(USERS)[:26]
    attendance = model.attend(drawn, 1)
    quickest = sorted(drawn, key=model.arrival)
    assert attendance.present == quickest[:20] and attendance.unneeded == quickest[20:]
    assert attendance.seconds == model.arrival(quickest[19])
    # One that drops out is made up for.
    dropping = devices(slow_rate=1.0, fraction=0.2, over_selection=1.3, drop_rate=0.1).attend(drawn, 1)
    assert dropping.dropped and len(dropping.present) == 20


@pytest.mark.parametrize("needed", range(1, 101))
def test_flower_draws_as_many_users_as_over_selection_says(devices, needed):
    model = devices(fraction=(needed + 0.5) / 100 if needed < 100 else 1.0, over_selection=1.3)
    assert model.needed == needed
    assert int(100 * model.fraction) == min(100, -(-needed * 13 // 10))
