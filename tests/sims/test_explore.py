"""`python sims/explore.py`: what each subcommand leaves, on the tiny base and made-up users."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file

FEW = ("--base-model", "random:tiny", "--data", "synthetic:4", "--max-queries", "2", "--retrieved", "2")


@pytest.fixture(scope="module")
def explored(tmp_path_factory, painted):
    """The folder that all four subcommands on vectors have written to, and what each printed."""
    import importlib
    import io
    from contextlib import redirect_stdout

    out, said = tmp_path_factory.mktemp("explore"), {}
    explore = importlib.import_module("explore")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("rank", "delta-vectors", "shift", "neighbours"):
            text = io.StringIO()
            with redirect_stdout(text):
                assert explore.main([name, *FEW, "--out", str(out)]) == 0
            said[name] = text.getvalue()
            patch.setattr(explore, "save", painted)  # one subcommand's are written
    return out, said


def result(explored, name):
    return json.loads((explored[0] / "LaMP_7" / f"{name}.json").read_text())


def test_vectors_of_all_users_are_kept_and_read_again(explored, command, monkeypatch, script, quick_figures):
    out, _ = explored
    kept = load_file(out / "LaMP_7" / result(explored, "delta-vectors")["file"])
    assert {name: array.shape for name, array in kept.items()} == {"own": (8, 32), "other": (8, 32)}
    assert np.isfinite(kept["own"]).all() and not np.allclose(kept["own"], kept["other"])
    lengths = result(explored, "delta-vectors")["lengths"]["own"]
    assert lengths == pytest.approx(np.linalg.norm(kept["own"].astype(float), axis=1))
    vectors = script("exploration.vectors")
    monkeypatch.setattr(vectors, "delta_vectors", lambda *_, **__: pytest.fail("computed again"))
    assert command("explore", "delta-vectors", *FEW, "--out", out).code == 0


def test_vectors_that_were_stopped_go_on_at_the_next_user(explored, script, tmp_path, monkeypatch):
    vectors = script("exploration.vectors")
    options = script("explore").parser().parse_args(["rank", *FEW, "--out", str(tmp_path)])
    asked, whole = [], vectors.delta_vectors

    def stopped(*arguments, start, **more):
        asked.append(start)
        for number, shift in enumerate(whole(*arguments, start=start, **more)):
            if not start and number == 3:
                raise KeyboardInterrupt
            yield shift

    monkeypatch.setattr(vectors, "delta_vectors", stopped)
    with pytest.raises(KeyboardInterrupt):
        vectors.vectors_of(options, None)
    found = vectors.vectors_of(options, None)
    assert asked == [0, 3]
    kept = load_file(explored[0] / "LaMP_7" / result(explored, "delta-vectors")["file"])
    assert np.array_equal(found.own, kept["own"]) and np.array_equal(found.other, kept["other"])
    assert [file.name for file in (tmp_path / "LaMP_7").iterdir()] == [result(explored, "delta-vectors")["file"]]


def test_every_subcommand_leaves_its_numbers_and_its_figures_of_what_it_says(explored):
    out, said = explored
    for name, figures in (
        ("delta-vectors", ["delta-vectors.png"]),
        ("rank", ["rank.png", "rank.svg"]),
        ("shift", ["shift-users.png", "shift-coordinates.png", "shift-errors.png"]),
        ("neighbours", ["neighbours.png"]),
    ):
        of = result(explored, name)["of"]
        assert (of["users"], of["seed"], of["task"], of["data"]) == (8, 0, "LaMP_7", "synthetic:4")
        assert f"wrote {', '.join([f'{name}.json', *figures])} to" in " ".join(said[name].split())
    assert (out / "LaMP_7" / "rank.png").read_bytes().startswith(b"\x89PNG")
    words = " ".join(re.sub(r"<[^>]+>", " ", (out / "LaMP_7" / "rank.svg").read_text()).split())
    assert "LaMP_7 of synthetic:4" in words and "8 users" in words and "seed 0" in words


def test_the_rank_stands_beside_the_paper_s_and_beside_its_bound(explored):
    found = result(explored, "rank")
    assert found["paper"] == {"0.8": 3, "0.9": 32, "0.95": 177}
    assert [(s["whose"], s["centred"], s["most"]) for s in found["spectra"]] == [
        ("own", False, 8), ("own", True, 7), ("other", False, 8), ("other", True, 7),
    ]  # fmt: skip
    first = found["spectra"][0]
    assert first["per_mille"]["0.8"] == pytest.approx(1000 * first["dimensions"]["0.8"] / 32)
    assert first["cumulative"][first["dimensions"]["0.9"] - 1] >= 0.9 > first["cumulative"][0] - 1
    assert "8 users span at most 8 of 32 dimensions" in " ".join(explored[1]["rank"].split())


def test_texts_are_of_the_users_that_are_named(explored):
    found = result(explored, "neighbours")
    shown = [found["users"][place] for places in found["groups"].values() for place in places]
    assert set(found["texts"]) == set(shown) and all(found["texts"].values())
    ordered = [found["distances"][place] for places in found["groups"].values() for place in places]
    assert ordered == sorted(ordered)


class Page(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, text):
        super().__init__()
        self.figures, self.ids, self.sources = 0, [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.figures += tag == "svg"
        self.ids += [named["id"]] if "id" in named else []
        self.sources += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith("#")]


@pytest.mark.parametrize(
    "names, figures",
    [(("rank",), 1), pytest.param(("rank", "delta-vectors", "shift", "neighbours"), 6, marks=pytest.mark.nightly)],
)
def test_the_page_holds_every_figure_and_needs_nothing_else(explored, command, tmp_path, names, figures):
    out = tmp_path
    (out / "LaMP_7").mkdir()
    for name in names:
        shutil.copy(explored[0] / "LaMP_7" / f"{name}.json", out / "LaMP_7")
    assert command("explore", "report", "--out", out).code == 0
    text = (out / "report.html").read_text()
    page = Page(text)
    assert page.figures == figures and page.sources == [] and len(set(page.ids)) == len(page.ids)
    assert "prefers-color-scheme:dark" in text and "var(--stage1)" in text


@pytest.mark.nightly
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_the_page_without_a_complaint(explored, command, tmp_path, scheme):
    out, _ = explored
    assert command("explore", "report", "--out", out).code == 0
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    shown = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom", *dark,
         f"--user-data-dir={tmp_path}", (out / "report.html").as_uri()],
        capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr
    assert Page(shown.stdout).figures == 6 and shown.stdout.rstrip().endswith("</html>")


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["rank", "--users", "-1"], "--users must be at least 0, got -1"),
        (["rank", "--base-model", "random:tiny", "--layer", "4"], "--layer must lie in 0..3 or be -1, got 4"),
        (["rank", "--base-model", "random:tiny", "--data", "synthetic:4", "--users", "1"], "at least 2 users, got 1"),
        (["rank", "--data", "nowhere"], "data must be 'synthetic' or an existing folder"),
        (["neighbours", "--show", "0"], "--show must be at least 1, got 0"),
        (["report"], "must hold a result of delta-vectors"),
    ],
)
def test_a_mistake_is_one_line(command, tmp_path, arguments, said):
    ended = command("explore", *arguments, "--out", tmp_path)
    assert ended.code == 1 and ended.err.startswith("error: ") and ended.err.count("\n") == 1 and said in ended.err
