"""From a hub exactly the files that are read, through huggingface_hub's own client and a hub on this machine."""

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.hf_api
import pytest
from huggingface_hub import constants

from fed.base import model as base_model
from fed.base.model import load
from fed.base.sources import BaseModelError, check

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BESIDE = {
    "README.md": b"# a model",
    "pytorch_model.bin": b"pickled",
    "consolidated.safetensors": b"the same weights again",
    "model.fp16.safetensors": b"and again",
    "original/params.json": b"{}",
    "original/tokenizer.model": b"and the first of them",
    "onnx/model.onnx": b"and for another engine",
    "modeling_ours.py": b"raise SystemExit",
    "flax_model.msgpack": b"",
    "vocab.txt.old": b"",
    "data.json": b"{}",
}


class Hub:
    """A hub on this machine that serves a folder; `fetched`: the files whose content went out."""

    def __init__(self, folder):
        self.fetched, self.asked, hub = [], [], self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self._answer(False)

            def do_GET(self):
                self._answer(True)

            def _answer(self, content):
                path = self.path.split("?")[0]
                hub.asked.append(path)
                if path.startswith("/api/models/acme/tiny"):
                    names = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file())
                    siblings = [{"rfilename": n, "size": (folder / n).stat().st_size} for n in names]
                    tree = [{"type": "file", "path": n, "size": (folder / n).stat().st_size, "oid": "0"} for n in names]
                    about = {"id": "acme/tiny", "modelId": "acme/tiny", "sha": COMMIT, "siblings": siblings}
                    return self._send(json.dumps(tree if "/tree/" in path else about).encode(), content)
                name = path.partition(f"/resolve/{COMMIT}/")[2] or path.partition("/resolve/main/")[2]
                if not name or not (folder / name).is_file():
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound" if name else "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return None
                if content:
                    hub.fetched.append(name)
                return self._send((folder / name).read_bytes(), content)

            def _send(self, body, content):
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                if content:
                    self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub_of(tmp_path, monkeypatch):
    """hub_of(folder) -> a hub that has it as acme/tiny; the hub's cache is the test's own."""
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hubs = []

    def serve(folder):
        hub = Hub(folder)
        hubs.append(hub)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.address)
        return hub

    base_model.forget()
    yield serve
    base_model.forget()
    for hub in hubs:
        hub.server.shutdown()
        hub.server.server_close()


def _with_other_files(folder):
    for name, content in BESIDE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("shards", [False, True])
def test_exactly_the_files_that_are_read_are_fetched_once_and_their_size_is_said(saved, hub_of, capsys, shards):
    folder = saved(shards=shards)
    wanted = {file.name for file in folder.iterdir()}
    hub = hub_of(_with_other_files(folder))
    check("acme/tiny")
    assert set(hub.fetched) == wanted and len(hub.fetched) == len(wanted)
    size = sum((folder / name).stat().st_size for name in wanted)
    assert f"fetching acme/tiny: {len(wanted)} files, {size / 1e6:,.1f} MB in all" in capsys.readouterr().err
    assert load("acme/tiny", device="cpu", dtype="float32").name == "acme/tiny"
    assert len(hub.fetched) == len(wanted)  # the load found all in the cache


def test_what_the_cache_lacks_is_fetched_and_no_more(saved, hub_of):
    folder = saved(shards=True)
    hub = hub_of(folder)
    check("acme/tiny")
    hub.fetched.clear()
    (snapshot,) = folder.parent.glob("hub/*/snapshots/*")
    gone = sorted(snapshot.glob("model-*.safetensors"))[1]
    gone.resolve().unlink()
    gone.unlink()
    load("acme/tiny", device="cpu", dtype="float32")
    assert hub.fetched == [gone.name]


@pytest.mark.parametrize("gone", ["*.safetensors", "token*", "model-00002*"])
def test_a_partial_cache_without_a_network_is_refused_by_what_is_missing(saved, hub_of, monkeypatch, gone):
    folder = saved(shards=True)
    hub_of(folder)
    check("acme/tiny")
    (snapshot,) = folder.parent.glob("hub/*/snapshots/*")
    for file in snapshot.glob(gone):
        file.unlink()
    shutil.rmtree(folder.parent / "cache")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", "http://127.0.0.1:9")
    for act in (check, load):
        with pytest.raises(
            BaseModelError, match="must .*; it is the hub's cache, and the hub cannot be reached"
        ) as error:
            act("acme/tiny")
        assert "\n" not in str(error.value)


def test_a_repository_of_another_format_is_refused_before_anything_is_fetched(saved, hub_of):
    folder = saved()
    (folder / "model.safetensors").rename(folder / "tiny.Q4_0.gguf")
    hub = hub_of(folder)
    with pytest.raises(
        BaseModelError, match="'acme/tiny' on the hub has none; fetch 'tiny.Q4_0.gguf' and give that file"
    ):
        check("acme/tiny")
    (folder / "tiny.Q4_0.gguf").rename(folder / "pytorch_model.bin")
    with pytest.raises(BaseModelError, match="pickled weights are never read"):
        check("acme/tiny")
    assert hub.fetched == []
