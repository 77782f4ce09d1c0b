"""A Ray of the run's own: what of a federation config is its, and how it is started."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

from services import ray_head, ray_hook


def test_a_federation_config_is_rays_where_it_says_what_flower_starts_ray_with_and_flowers_in_the_rest():
    federation = {
        "num-supernodes": 20,
        "init-args-num-cpus": 4,
        "init-args-num-gpus": 0,
        "client-resources-num-cpus": 1,
    }
    assert ray_head.for_ray(federation) == {"--num-cpus": 4, "--num-gpus": 0}
    assert ray_head.without_ray(federation) == {"num-supernodes": 20, "client-resources-num-cpus": 1}
    assert ray_head.for_ray({}) == ray_head.without_ray({}) == {}


def test_ray_is_started_by_its_own_command_without_what_a_simulation_does_not_use(tmp_path):
    shown = tmp_path / "ray"
    shown.write_text('#!/bin/sh\necho "$@"; echo "$RAY_ADDRESS|$RAY_START_HOOK|$RAY_prestart_worker_first_driver"\n')
    shown.chmod(0o755)
    told = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RAY_ADDRESS": "127.0.0.1:1"}
    process = ray_head.start(told, 4321, {"--num-cpus": 4}, tmp_path / "log")
    assert process.wait(20) == 0
    words, environment = (tmp_path / "log").read_text().splitlines()
    assert words.startswith("start --head --block --port=4321 ") and words.endswith(" --num-cpus=4")
    assert "--include-dashboard=false" in words and "--no-monitor" in words
    assert environment == "|ray_hook.without_client_server|0"


def test_ray_finds_the_hook_where_it_is_told_and_it_leaves_out_the_clients_server():
    parameters = SimpleNamespace(ray_client_server_port=10001)
    ray_hook.without_client_server(parameters, True)
    assert parameters.ray_client_server_port is None
    found = subprocess.run(
        [sys.executable, "-c", "import ray_hook; print(ray_hook.without_client_server.__name__)"],
        env={"PYTHONPATH": ray_head._HERE},
        capture_output=True,
        text=True,
    )
    assert found.stdout.strip() == "without_client_server"
