"""install.sh: pip's words and pip's settings, carried out by uv or by pip, at the constrained versions."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
UV = Path(sys.executable).parent / "uv"


def write_wheel(folder: Path, version: str) -> None:
    """A wheel of a package with one module and no requirements."""
    about = f"tiny_thing-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny_thing-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_thing.py", "")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: tiny-thing\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_folder_of_wheels_that_pip_knows_is_used_and_the_constraint_holds(tmp_path, installer):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for version in ("1.0", "2.0"):
        write_wheel(wheels, version)
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("tiny-thing==1.0\n")
    shutil.copy(CHECKOUT / "install.sh", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / ".venv")], check=True)
    bins = tmp_path / "bin"
    bins.mkdir()
    (bins / "uv").symlink_to(UV)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    environment |= {"PATH": f"{bins}:/usr/bin:/bin", "PIP_FIND_LINKS": str(wheels), "PIP_CONSTRAINT": str(constraints)}
    environment |= {"INSTALLER": installer, "UV_CACHE_DIR": str(tmp_path / "cache")}
    command = [str(tmp_path / "install.sh"), "--no-index", "tiny-thing"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (" + tiny-thing==1.0" in done.stderr) == (installer == "uv")  # each says in its own way that it was the one
    assert ("Successfully installed tiny-thing-1.0" in done.stdout) == (installer == "pip")
    (about,) = tmp_path.glob(".venv/lib/*/site-packages/tiny_thing-*")
    assert about.name == "tiny_thing-1.0.dist-info"
