"""A simulation's account of when clients were at work."""

import pytest
from flwr.app import MetricRecord, RecordDict

from server_strategy.grid.work_time import WorkTime


def content(began: float, ended: float) -> RecordDict:
    return RecordDict({"timing": MetricRecord({"began": began, "ended": ended}), "0/metrics": MetricRecord({"n": 1})})


def test_clients_at_work_at_the_same_time_count_once():
    work = WorkTime()
    for span in ((5.0, 7.0), (1.0, 4.0), (2.0, 3.0), (3.5, 5.0), (10.0, 12.0)):
        work.take(content(*span))
    assert work.seconds() == pytest.approx(6.0 + 2.0)
    assert work.seconds(since=6.0) == pytest.approx(1.0 + 2.0)


def test_the_record_is_taken_out_of_the_reply_and_a_reply_without_one_changes_nothing():
    work, reply = WorkTime(), content(1.0, 2.0)
    work.take(reply)
    assert list(reply) == ["0/metrics"] and work.known
    work.take(reply)
    assert work.seconds() == pytest.approx(1.0)
    assert not WorkTime().known
