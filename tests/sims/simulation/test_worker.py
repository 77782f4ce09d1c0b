"""A kept process takes the threads of its seat, and fewer where the environment says fewer."""

import subprocess

import pytest

START = subprocess.Popen


@pytest.mark.parametrize(("asked", "threads"), [(None, "2"), ("1", "1"), ("8", "2"), ("", "2"), ("0", "2"), ("x", "2")])
def test_a_kept_process_has_the_threads_of_its_seat_or_those_that_omp_num_threads_leaves_it(
    script, monkeypatch, asked, threads
):
    started = []

    def start(command, *, env, **options):
        started.append(env["OMP_NUM_THREADS"])
        return START(["true"], env=env, **options)

    worker = script("simulation.worker")
    monkeypatch.setattr(worker.subprocess, "Popen", start)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    with worker.worker(2):
        assert started == [threads]
