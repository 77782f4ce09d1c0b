"""Files that share a fixture which starts processes are named where pytest's workers are given their tests."""

from __future__ import annotations

import pytest

from tests.conftest import TESTS, TOGETHER, group_of


@pytest.mark.parametrize("fixture", TOGETHER)
def test_the_files_that_use_a_shared_fixture_are_those_that_one_worker_takes(fixture):
    files = (file for file in (TESTS / "sims").rglob("test_*.py") if fixture in file.read_text(encoding="utf-8"))
    assert sorted(file.relative_to(TESTS).as_posix() for file in files) == sorted(TOGETHER[fixture])


def test_any_other_file_is_a_group_of_its_own():
    assert group_of("tests/sims/test_run.py::test_x") == group_of("tests/sims/test_bench_scale.py::test_y[1]")
    assert group_of("tests/sims/test_search.py::test_x[a::b]") == "kept_worker"
    assert group_of("tests/fed/test_atomic_write.py::test_x") == "tests/fed/test_atomic_write.py"
