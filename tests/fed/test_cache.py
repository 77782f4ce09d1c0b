"""One folder for all that is derived, wherever the environment says."""

from fed.cache import cache_home
from tests.conftest import REPOSITORY


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))
    assert cache_home() == tmp_path / "cache"
    monkeypatch.delenv("PERFIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_home() == tmp_path / "xdg" / "perfit-fed"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_home() == tmp_path / ".cache" / "perfit-fed"


def test_no_other_file_says_where_that_folder_is():
    files = [file for house in ("fed", "clients", "server_strategy") for file in (REPOSITORY / house).rglob("*.py")]
    naming = {file.name for file in files if "XDG_CACHE_HOME" in file.read_text(encoding="utf-8")}
    assert naming == {"cache.py"} and (REPOSITORY / "fed" / "cache.py") in files
