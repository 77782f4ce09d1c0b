"""What `pip install .` would bring: every module of the three packages, and nothing of the simulations or the tests."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("fed", "clients", "server_strategy")


def test_the_wheel_holds_every_module_of_the_packages_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(CHECKOUT / name, source / name)
    for name in (*PACKAGES, "sims", "tests"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    assert (source / "sims" / "run.py").is_file() and (source / "tests" / "test_wheel.py").is_file()
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = tmp_path.glob("perfit_fed-*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == {str(file.relative_to(source)) for name in PACKAGES for file in (source / name).rglob("*.py")}
    assert len(packed) > 80
