"""What a simulation's processes are told, whatever the machine is like; by night a run behind a proxy."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from simulation import apps, environment
from simulation.environment import of_flower, run_folder, without_proxy

REPOSITORY = Path(__file__).resolve().parents[3]
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.mark.parametrize("before", [{}, {"no_proxy": "example.org, ::1"}, {"NO_PROXY": "example.org,::1"}])
def test_loopback_is_asked_directly_and_hosts_that_were_named_still_are(before):
    told = without_proxy({"http_proxy": "http://proxy:9", **before})
    assert told["no_proxy"] == told["NO_PROXY"] and told["http_proxy"] == "http://proxy:9"
    hosts = told["no_proxy"].split(",")
    assert {"127.0.0.1", "localhost", "::1"} <= set(hosts) and len(hosts) == len(set(hosts))
    assert ("example.org" in hosts) == bool(before)


def test_a_runs_folder_is_its_owners_and_short_enough_for_rays_sockets_where_tmpdir_is_long(tmp_path, monkeypatch):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(environment.tempfile, "gettempdir", lambda: str(long))
    folder = run_folder()
    try:
        session = "ray/session_2026-11-25_21-03-29_123456_4194304/sockets/plasma_store.1"
        assert len(str(folder / session)) <= 107
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700 and not list(long.iterdir())
    finally:
        folder.rmdir()


def test_where_no_short_folder_can_be_written_to_one_line_says_what_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr(environment.tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 90)))
    monkeypatch.setattr(environment, "SHORT_FOLDERS", ("/no-such",))
    with pytest.raises(ValueError, match="16 characters at most, got TMPDIR=.*; set TMPDIR to a short path"):
        run_folder()


def test_what_the_user_has_told_flower_and_ray_stays(tmp_path):
    told = of_flower({"FLWR_TELEMETRY_ENABLED": "1", "PATH": "/bin"}, None)
    assert told["FLWR_TELEMETRY_ENABLED"] == "1" and told["PATH"].endswith("/bin") and "RAY_TMPDIR" not in told
    assert told["RAY_DEDUP_LOGS"] == "0"  # Ray would show one node's line for all that say the like in five seconds
    assert told["RAY_worker_niceness"] == "0"  # Ray's own 15 would leave a run next to nothing beside others
    assert told["RAY_gcs_rpc_server_reconnect_timeout_s"] == "10"  # with 60 two agents outlive a killed command by that
    assert of_flower({"RAY_worker_niceness": "5"}, None)["RAY_worker_niceness"] == "5"
    own = of_flower({}, tmp_path)
    assert own["FLWR_HOME"] == own["RAY_TMPDIR"] == own["TMPDIR"] == str(tmp_path)


def test_where_caches_cannot_be_kept_a_run_has_its_own_and_elsewhere_the_users(tmp_path):
    (tmp_path / "file").write_text("")
    for there, usable in ((tmp_path, True), (tmp_path / "new" / "deep", True), (tmp_path / "file", False)):
        given = {"XDG_CACHE_HOME": str(there)}
        assert environment.has_cache(given) == usable
        assert of_flower(given, None)["XDG_CACHE_HOME"] == str(there)
        own = of_flower(given, tmp_path / "run")["XDG_CACHE_HOME"]
        assert own == (str(there) if usable else str(tmp_path / "run" / "cache"))


@pytest.mark.nightly
def test_a_run_behind_a_proxy_with_a_long_tmpdir_and_without_a_cache_ends_well_and_leaves_no_file_there(
    short_run, tmp_path
):
    long = tmp_path / ("t" * 80)
    long.mkdir()
    told = {key: value for key, value in os.environ.items() if key.lower() != "no_proxy" and key != "FLWR_HOME"}
    (tmp_path / "file").write_text("")
    told |= {"TMPDIR": str(long), "XDG_CACHE_HOME": str(tmp_path / "file")}  # no folder: as a home that is read only
    told |= dict.fromkeys(PROXIES, "http://127.0.0.1:9")  # nobody listens there
    command = [sys.executable, str(REPOSITORY / "sims" / "run.py"), str(REPOSITORY / "sims" / "lamp7")]
    command += ["-c", apps.words(short_run(tmp_path / "runs"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=told)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())["supernodes"] > 0
    assert list(long.iterdir()) == []
    homes = set(re.findall(r"/[\w/]*/perfit-flwr-\w+", done.stdout))
    assert homes and not any(Path(home).exists() for home in homes)
