"""`sims/bench_memory.py`: what it reads of processes, and stage 2 of many users by the real ClientApp."""

from __future__ import annotations

import json
import mmap
import os
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_pages_of_a_file_are_counted_and_those_of_its_neighbours_are_not(script, tmp_path):
    bench, size = script("bench.memory"), 1 << 20
    (tmp_path / "in").mkdir()
    (tmp_path / "inner").mkdir()
    for name in ("in", "inner"):
        with (tmp_path / name / "weights").open("wb") as file:
            file.write(b"x" * size)
            file.flush()
            os.fsync(file.fileno())  # pages that wait to be written count as dirty
    with (tmp_path / "in" / "weights").open("rb") as one, (tmp_path / "inner" / "weights").open("rb") as other:
        maps = [mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE, prot=3) for file in (one, other)]
        assert maps[0].read() == maps[1].read()
        assert bench.mapped("self", tmp_path / "in") == {"Rss": size, "Pss": size, "Private_Dirty": 0}
        maps[0][:1] = b"y"  # a page of its own from now on
        assert bench.mapped("self", tmp_path / "in")["Private_Dirty"] == mmap.PAGESIZE
        assert bench.mapped("self", None)["Rss"] > 2 * size
    assert bench.mapped(2**30, None) == {"Rss": 0, "Pss": 0, "Private_Dirty": 0}  # no such process


@pytest.mark.nightly
def test_two_processes_and_a_message_of_many_users(command, tmp_path, tiny_base):
    file = tmp_path / "memory.json"
    few = ("--parts", "base,stage2", "--users", "70", "--dtype", "float32", "--base-model", tiny_base)
    ended = command("bench_memory", *few, "--json", file)
    assert ended.code == 0, ended.out + ended.err
    found = json.loads(file.read_text())
    assert found["base"]["processes"] == 2 and found["base"]["base_bytes"] == 4 * 37_344
    assert found["base"]["file_private_dirty"] == 0 and all(found["base"]["file_rss"])
    assert found["stage2"]["users"] == 70
    assert max(found["stage2"]["peak_by_tenth"]) > 4 * 37_344 and found["stage2"]["last_over_second"] > 0
