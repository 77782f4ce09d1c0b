"""`python sims/compare_averages.py` on the tiny base and made-up users: its cells, its file, and where it goes on."""

from __future__ import annotations

import json

import pytest
import torch

TINY = 'layers="1,2" stage1-rank=2 stage1-users=7 stage2-users=3 max-items=2 max-queries=2 dtype="float32"'


@pytest.fixture
def compare(command, tiny_base, tmp_path):
    """compare("--seeds", "0") -> (how it ended, the content of its file); every call has the same file."""
    file = tmp_path / "deep" / "averages-2.json"

    def run(*arguments):
        options = ("--rounds", 2, "--drifts", "1", *arguments)
        ended = command("compare_averages", "--json", file, "-c", f'base-model="{tiny_base}" {TINY}', *options)
        return ended, json.loads(file.read_text()) if file.exists() else None

    return run


def test_every_cell_has_its_rounds_and_svd_is_held_against_fedavg_with_an_interval(compare, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "averages.png").write_bytes(b"of another file")
    ended, content = compare("--averages", "svd,fedavg,exact,frozen-r", "--seeds", "0,1")
    assert ended.code == 0, ended.err
    assert len(content["cells"]) == 8
    for cell in content["cells"]:
        assert [one["round"] for one in cell["rounds"]] == [1, 2]
        users = cell["rounds"][1]["users"]
        pooled = sum(nll for nll, _ in users.values()) / sum(tokens for _, tokens in users.values())
        assert len(users) == 3 and cell["rounds"][1]["loss"] == pytest.approx(pooled)
        assert cell["machine"] and cell["commit"] and cell["base_loss"] > 0
        off = cell["rounds"][1]["orthogonality_error"]
        assert off > 1e-5 if cell["cell"]["average"] == "fedavg" else off < 1e-5
    assert {row["average"] for row in content["differences"]} == {"svd", "exact", "frozen-r"}
    gap = next(row for row in content["differences"] if (row["average"], row["of"]) == ("svd", "last round"))
    assert gap["low"] <= gap["difference"] <= gap["high"] and gap["users"] == 3 and len(gap["by_seed"]) == 2
    assert all((tmp_path / "deep" / f"averages-2.{ending}").stat().st_size > 1000 for ending in ("png", "svg"))
    assert (tmp_path / "deep" / "averages.png").read_bytes() == b"of another file"
    assert "minus fedavg" in ended.out and "base, untrained" in ended.out


def test_cells_that_the_file_has_are_not_run_again_and_other_settings_are_refused(compare, script, monkeypatch):
    first, before = compare("--averages", "svd", "--seeds", "0")
    played = []
    federation = script("averages.federation").Federation
    play = federation.play
    monkeypatch.setattr(federation, "play", lambda *a, **k: played.append(a[1].average) or play(*a, **k))
    _, after = compare("--averages", "svd,polar", "--seeds", "0")
    assert played == ["polar"] and after["cells"][0] == before["cells"][0]
    refused, same = compare("--averages", "svd", "--seeds", "0", "-c", "stage1-rank=3")
    assert refused.code == 1 and "cells of other settings (stage1-rank differ)" in refused.err and same == after


def test_with_attackers_every_average_meets_every_attack_and_too_many_are_refused_in_the_table(compare):
    ended, content = compare("--attackers", "--averages", "svd,krum,bulyan", "--rounds", 1)
    assert ended.code == 0, ended.err
    cells = {(one["cell"]["average"], one["cell"]["attack"], one["cell"]["share"]): one for one in content["cells"]}
    assert len(cells) == 3 * (1 + 4 * 3)
    assert "rounds" in cells["bulyan", "scaling", 0.1]  # one of seven
    assert "attackers=2 needs at least" in cells["bulyan", "scaling", 0.3]["refused"]
    poisoned = cells["svd", "backdoor", 0.3]["rounds"][0]
    assert poisoned["backdoor"] < cells["svd", "backdoor", 0.1]["rounds"][0]["backdoor"]  # two of seven, and one
    assert poisoned["loss"] != cells["svd", "", 0.0]["rounds"][0]["loss"]
    # Krum knows how many lie: whatever they send, it takes the same honest user.
    far, noisy = (cells["krum", attack, 0.3]["rounds"][0]["loss"] for attack in ("scaling", "noise"))
    assert far == noisy
    assert cells["svd", "scaling", 0.3]["rounds"][0]["loss"] != cells["svd", "", 0.0]["rounds"][0]["loss"]
    assert "refused" in ended.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--averages", "svd,mean"), "--averages must be of svd, fedavg, polar, "),
        (("--drifts", "0"), "--drifts must be 1 or more"),
        (("--rounds", "0"), "--rounds must be at least 1"),
        (("-c", 'method="oppu"'), "method must be perfit or perfit-stage1"),
    ],
)
def test_a_bad_option_is_one_line(compare, arguments, said):
    ended, content = compare(*arguments)
    assert ended.code == 1 and said in ended.err and ended.err.count("\n") == 1 and content is None


def test_a_file_of_another_command_is_refused(compare, tmp_path):
    file = tmp_path / "deep" / "averages-2.json"
    file.parent.mkdir()
    file.write_text("[]")
    ended, content = compare("--averages", "svd")
    assert ended.code == 1 and "--json must name a new file, or one of this command" in ended.err and content == []


def test_lies_change_the_map_and_leave_r(script):
    lie = script("averages.attacks").lie
    R = torch.linalg.qr(torch.randn(2, 8, 3, dtype=torch.float64)).Q.mT
    reply = {"R": R, "W": R + torch.randn(2, 3, 8, dtype=torch.float64), "b": torch.randn(2, 3, dtype=torch.float64)}
    for attack, factor in (("sign-flip", -1.0), ("scaling", 30.0)):
        sent = lie(attack, reply, (0, 1, "a"))
        torch.testing.assert_close(sent["W"] - R, factor * (reply["W"] - R))
        torch.testing.assert_close(sent["b"], factor * reply["b"])
        assert torch.equal(sent["R"], R)
    noisy, other = (lie("noise", reply, (0, 1, user)) for user in "ab")
    assert 5 < float((noisy["W"] - reply["W"]).norm() / (reply["W"] - R).norm()) < 20
    assert not torch.equal(noisy["W"], other["W"]) and torch.equal(noisy["W"], lie("noise", reply, (0, 1, "a"))["W"])
    assert lie("backdoor", reply, (0, 1, "a")) is reply
    assert set(lie("sign-flip", {"D": reply["W"], "b": reply["b"]}, (0, 1, "a"))) == {"D", "b"}
