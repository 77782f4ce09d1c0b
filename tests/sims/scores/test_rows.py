"""Reports put together: which arm stands in which table, means over seeds, parameters against OPPU's, and the pages."""

import csv
import html.parser
import io
import xml.etree.ElementTree as ElementTree

import pytest

from fed.base.skeleton import skeleton
from fed.communication import costs
from fed.lamp import metrics
from fed.lamp.tasks import TASKS, get_task
from fed.settings import paths
from tests.conftest import REPOSITORY

STARS = get_task("LaMP_3")
BASE = skeleton("smollm2-135m")
OPPU = costs.cost("oppu", BASE)


def report(method, arms, *, seed=0, stage1=0, stage2=0, payload=1024):
    """A run of three users; arms: arm -> the three ratings that were predicted for golds 1, 3 and 5."""
    found = {}
    for number, gold in enumerate("135"):
        found[f"u{number}"] = {
            arm: {"nll": 2.0, "tokens": 2.0, **metrics.statistics(STARS, [gold], [ratings[number]])}
            for arm, ratings in arms.items()
        }
    scores = {
        arm: {"loss_per_token": 1.0, **metrics.scores(STARS, metrics.merge([one[arm] for one in found.values()]))}
        for arm in arms
    }
    every = ("base", "stage1", "stage1+2", "swapped")
    return {
        "method": method,
        "seed": seed,
        "git": "abc",
        "base_model": {"name": "tiny", "dtype": "float32"},
        "settings": {"base-model": "smollm2-135m"},
        "arms": {arm: scores.get(arm) for arm in every},
        "users": [{"user_id": user, "sums": own} for user, own in found.items()],
        "parameters": {"stage1": stage1, "stage2": stage2, "base": BASE.parameters},
        "bytes": {"stage1": {"up": {"payload": payload}, "down": {"payload": payload}}},
        "seconds": {"stage1": 4.0 * bool(stage1), "stage2": 2.0 * bool(stage2), "total": 10.0},
    }


@pytest.fixture
def reports():
    right, near, far = "135", "234", "551"
    return {
        ("LaMP_3", "perfit"): [
            report("perfit", {"base": far, "stage1": near, "stage1+2": right}, stage1=1000, stage2=500),
            report("perfit", {"base": far, "stage1": near, "stage1+2": near}, stage1=1000, stage2=500, seed=1),
        ],
        ("LaMP_3", "perfit-stage1"): [report("perfit-stage1", {"base": far, "stage1": near}, stage1=1000)],
        ("LaMP_3", "lora-p"): [report("lora-p", {"base": far, "stage1+2": near}, stage2=9000)],
        ("LaMP_3", "rag"): [report("rag", {"base": near}, payload=0)],
    }


def test_both_stages_of_a_method_stand_in_its_tasks_table_and_table_4_has_lora_p_as_reference(script, reports):
    rows = script("scores.rows").rows(reports)
    assert [(row["table"], row["stage"], row["method"], row["arm"]) for row in rows] == [
        (2, "nothing trained", "rag", "base"),
        (2, "stage 1", "perfit", "stage1"), (2, "stage 1", "perfit-stage1", "stage1"),
        (2, "stage 1 + 2", "perfit", "stage1+2"), (2, "stage 1 + 2", "lora-p", "stage1+2"),
        (4, "last arm", "perfit", "stage1+2"), (4, "last arm", "perfit-stage1", "stage1"),
        (4, "last arm", "lora-p", "stage1+2"),
    ]  # fmt: skip


def test_labels_are_the_papers_table_2_and_texts_its_table_3(script):
    tables = {task: script("scores.rows").table_of(get_task(task)) for task in TASKS}
    assert tables == {"LaMP_2N": 2, "LaMP_2M": 2, "LaMP_3": 2, "LaMP_4": 3, "LaMP_5": 3, "LaMP_7": 3}


def test_a_base_of_the_checkout_is_found_from_everywhere(script, reports, tiny_base, tmp_path, monkeypatch):
    """In a report `base-model` stands as the run config has it: relative to the checkout, not to the working folder."""
    (tmp_path / "checkout" / "sims").mkdir(parents=True)
    (tmp_path / "checkout" / "tiny").symlink_to(tiny_base)
    monkeypatch.setattr(paths, "__file__", str(tmp_path / "checkout" / "fed" / "settings" / "paths.py"))
    monkeypatch.chdir(tmp_path)
    oppu = costs.cost("oppu", skeleton(str(tiny_base)))
    for seeds in reports.values():
        for one in seeds:
            one["settings"]["base-model"] = "tiny"
    less = {(row["table"], row["method"]): row["less_than_oppu_percent"] for row in script("scores.rows").rows(reports)}
    assert less[2, "lora-p"] == pytest.approx(100 * (1 - 9000 / oppu.private_parameters))


def test_no_command_takes_a_reports_base_model_for_a_path_of_its_own():
    raw = {
        f"{file.relative_to(REPOSITORY)}: {line.strip()}"
        for file in (REPOSITORY / "sims").rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if '["base-model"]' in line and "base_source(" not in line
    }
    assert raw == set()


def test_means_deviations_parameters_and_bytes(script, reports):
    rows = {(row["stage"], row["method"]): row for row in script("scores.rows").rows(reports)}
    perfit = rows["stage 1 + 2", "perfit"]
    # errors 0 0 0 with seed 0 and 1 0 1 with seed 1: MAE 0 and 2/3
    assert perfit["scores"]["mae"] == {"mean": pytest.approx(1 / 3), "sd": pytest.approx((2 / 3) / 2**0.5)}
    assert perfit["seeds"] == [0, 1] and perfit["parameters"] == 500
    assert perfit["percent_of_base"] == pytest.approx(100 * 500 / 134_515_008)
    assert perfit["less_than_oppu_percent"] == pytest.approx(100 * (1 - 500 / OPPU.private_parameters))
    assert rows["stage 1", "perfit"]["less_than_oppu_percent"] == pytest.approx(
        100 * (1 - 1000 / OPPU.federated_parameters)
    )
    both = OPPU.federated_parameters + OPPU.private_parameters
    assert rows["last arm", "perfit"]["less_than_oppu_percent"] == pytest.approx(100 * (1 - 1500 / both))
    assert (
        perfit["payload_bytes"] == {"mean": 2048, "sd": 0}
        and rows["stage 1 + 2", "lora-p"]["scores"]["mae"]["sd"] is None
    )
    rag = rows["nothing trained", "rag"]
    assert rag["less_than_oppu_percent"] is None and rag["parameters"] == rag["trained_percent_of_base"] == 0
    shares = [rows[stage, "perfit"]["trained_percent_of_base"] for stage in ("stage 1", "stage 1 + 2", "last arm")]
    assert shares == pytest.approx([100 * n / 134_515_008 for n in (1000, 1500, 1500)])
    seconds = [rows[stage, "perfit"]["training_seconds"]["mean"] for stage in ("stage 1", "stage 1 + 2")]
    assert seconds == [4.0, 6.0] and rag["training_seconds"]["mean"] == 0


def test_differences_are_between_last_arms_of_the_same_task(script, reports):
    gaps = script("scores.rows").differences(reports, "perfit")
    assert {gap["theirs"] for gap in gaps} == {"perfit-stage1", "lora-p", "rag", "perfit, base", "perfit, stage1"}
    assert {gap["metric"] for gap in gaps} == {"loss_per_token", "mae", "rmse"}
    (mae,) = [gap for gap in gaps if gap["theirs"] == "lora-p" and gap["metric"] == "mae"]
    assert mae["value"] == pytest.approx(1 / 3 - 2 / 3) and mae["users"] == 3
    # seed 0 has errors 0 0 0 and seed 1 has 1 0 1, so a user's means are 1/2 0 1/2; theirs are 1 0 1
    reach = 4.30265 * (1 / 12) ** 0.5 / 3**0.5  # t of 2 degrees of freedom, differences -1/2 0 -1/2
    assert (mae["low"], mae["high"]) == (pytest.approx(-1 / 3 - reach, 1e-5), pytest.approx(-1 / 3 + reach, 1e-5))
    assert mae["p_raw"] == pytest.approx(1 - 2 / 6**0.5) and not mae["real"]  # t = -2, and 2 degrees of freedom
    (own,) = [gap for gap in gaps if gap["theirs"] == "perfit, stage1" and gap["metric"] == "mae"]
    assert own["value"] == pytest.approx(1 / 3 - 2 / 3)
    assert script("scores.rows").differences(reports, "oppu") == []


def test_an_arm_that_a_user_lacks_is_not_compared_and_costs_no_user(script, reports):
    for one in reports["LaMP_3", "perfit"]:
        del one["users"][0]["sums"]["stage1"]
    gaps = script("scores.rows").differences(reports, "perfit")
    assert "perfit, stage1" not in {gap["theirs"] for gap in gaps} and {gap["users"] for gap in gaps} == {3}


def test_the_family_of_a_task_is_all_its_comparisons_in_a_metric(script, reports):
    one = [gap for gap in script("scores.rows").differences(reports, "perfit") if gap["metric"] == "mae"]
    assert len(one) == 5
    assert min(gap["p"] for gap in one) == pytest.approx(min(1, 5 * min(gap["p_raw"] for gap in one)))


def test_a_difference_that_all_users_show_is_real_and_one_that_half_show_is_not(script):
    """Twenty users: errors 0 against 1 for all, and against 1 for every other one in turn."""

    def many(method, errors):
        users = {f"u{i}": metrics.statistics(STARS, ["3"], [str(3 + e)]) for i, e in enumerate(errors)}
        return {
            **report(method, {"base": "135"}),
            "users": [{"user_id": u, "sums": {"base": {"nll": 1.0, "tokens": 1.0, **own}}} for u, own in users.items()],
        }

    turns = [i % 2 for i in range(20)]
    those = {"right": [0] * 20, "wrong": [1] * 20, "odd": turns, "even": [1 - turn for turn in turns]}
    cells = {("LaMP_3", label): [many(label, errors)] for label, errors in those.items()}
    of = {
        (against, gap["theirs"]): gap
        for against in ("right", "odd")
        for gap in script("scores.rows").differences(cells, against)
        if gap["metric"] == "mae"
    }
    sure, unsure = of["right", "wrong"], of["odd", "even"]
    assert (sure["value"], sure["low"], sure["high"], sure["real"], sure["users"]) == (-1.0, -1.0, -1.0, True, 20)
    assert unsure["value"] == 0.0 and unsure["low"] < 0 < unsure["high"] and not unsure["real"] and unsure["p"] > 0.5


def test_only_users_that_all_have_are_compared_and_none_is_an_error(script, reports):
    reports["LaMP_3", "rag"][0]["users"].pop()
    assert {gap["users"] for gap in script("scores.rows").differences(reports, "perfit")} == {2}
    for user in reports["LaMP_3", "rag"][0]["users"]:
        user["user_id"] += "x"
    with pytest.raises(ValueError, match="must have a tested user in common"):
        script("scores.rows").differences(reports, "perfit")


def test_the_interval_that_is_asked_for_is_the_one_that_is_given(script, reports):
    t, bca = (script("scores.rows").differences(reports, "perfit", interval) for interval in ("t", "bca"))
    assert [gap["value"] for gap in t] == [gap["value"] for gap in bca]
    assert [gap["low"] for gap in t] != [gap["low"] for gap in bca]
    assert all(gap["p_raw"] == gap["p_sign_flip"] for gap in bca)


def test_a_figures_dots_lie_on_the_side_that_is_better(script):
    def gap(metric, value, theirs):
        return {"ours": "perfit", "theirs": theirs, "metric": metric, "value": value, "low": value - 0.1,
                "high": value + 0.1, "real": True}  # fmt: skip

    alone = {**gap("mae", 9.0, "x"), "low": None, "high": None, "real": False}  # one user: no interval

    figure = script("scores.figures").intervals([gap("mae", -0.5, "<oppu>"), gap("mae", 0.5, "rag"), alone])
    tree = ElementTree.fromstring(figure)
    zero = float(tree.find("line").get("x1"))
    dots = [(float(dot.get("cx")), dot.get("fill")) for dot in tree.iter("circle")]
    assert len(dots) == 2 and dots[0][0] < zero < dots[1][0]
    assert [colour for _, colour in dots] == ["var(--stage12)", "var(--swapped)"]
    assert "left of the line: perfit is better" in figure and "&lt;oppu&gt;" in figure
    assert "right of the line" in script("scores.figures").intervals([gap("rougeL", 0.1, "rag")])


def test_a_mark_is_a_methods_last_arm_where_its_parameters_and_its_metric_say(script, reports, tmp_path):
    tradeoff, rows = script("scores.tradeoff"), script("scores.rows").rows(reports)
    marks = {row["method"]: row["stage"] for row in tradeoff.by_task(rows)["LaMP_3"]}
    last = {"perfit": "stage 1 + 2", "perfit-stage1": "stage 1", "lora-p": "stage 1 + 2", "rag": "nothing trained"}
    assert marks == last and [tradeoff.metric_of(task).key for task in ("LaMP_3", "LaMP_4")] == ["mae", "rougeL"]
    (figure,) = tradeoff.figures(rows)
    assert all(f">{method}</text>" in figure for method in marks) and "6 s of training" in figure
    assert tradeoff.save(rows, tmp_path / "x.png").stat().st_size > 5000
    alone = [row for row in rows if row["method"] == "perfit"]
    assert tradeoff.figures(alone) == [] and tradeoff.save(alone, tmp_path / "y.png") is None


def test_labels_of_marks_that_lie_close_do_not_cover_each_other(script):
    tradeoff = script("scores.tradeoff")
    labels = tradeoff.apart([(0.5, 0.5), (0.52, 0.51), (0.5, 0.52), (0.9, 0.5)])
    ys = sorted(y for x, y in labels[:3])
    assert min(b - a for a, b in zip(ys, ys[1:], strict=False)) >= tradeoff.TALL * 0.999 and labels[3] == (0.9, 0.5)


@pytest.fixture
def results(script, reports):
    scores = script("scores.rows")
    return {
        "run": {
            "command": "python x <y>", "commits": ["abc"], "machine": "2 cores", "base_models": ["tiny (float32)"],
            "data": "data", "seeds": [0, 1], "preset": "small", "interval": "t",
        },
        "rows": scores.rows(reports),
        "differences": scores.differences(reports, "perfit"),
        "missing": [{"task": "LaMP_3", "method": "oppu", "seed": 0, "reason": "<b>broke</b> | here"}],
    }  # fmt: skip


def test_markdown_marks_the_best_mean_of_each_column_the_right_way_round(script, results):
    text = script("scores.tables").markdown(results)
    assert "| method | stage | LaMP_3 MAE ↓ | LaMP_3 RMSE ↓ |" in text and "## Table 3" not in text
    table = text.partition("## Table 2.")[2].partition("\n## ")[0]
    assert "| perfit | stage 1 + 2 | **0.3333 ± 0.4714** * |" in table and "| lora-p | stage 1 + 2 | 0.6667 |" in table
    assert "| perfit | stage 1 | 0.6667 ± 0.0000 |" in table and "| rag, k = 1 | nothing trained | 0.6667 |" in table
    losses = text.partition("## Table 2, loss per token")[2].partition("\n## ")[0]
    assert "| method | stage | LaMP_3 ↓ |" in losses and "| perfit | stage 1 | **1.0000 ± 0.0000** * |" in losses
    assert "over 3 users" in text and "paired t" in text and "the 5 comparisons of a metric (Holm)" in text
    assert "python x <y>" in text and "<b>broke</b> \\| here" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in lines)


def test_the_page_is_one_file_with_escaped_words_and_no_request_to_anywhere(script, results):
    page = script("scores.tables").html(results)
    assert "&lt;b&gt;broke&lt;/b&gt;" in page and "<b>broke" not in page
    tags = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append(tag)
            assert not {"src", "href"} & {name for name, _ in attrs}

    Reader().feed(page)
    assert "script" not in tags and tags.count("table") == len(script("scores.tables").sections(results))


def test_csv_has_a_row_per_table_method_and_metric(script, results, tmp_path):
    script("console.files").write_csv(tmp_path / "results.csv", script("scores.tables").flat(results))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert len(rows) == 8 * 3
    (one,) = [
        r
        for r in rows
        if (r["table"], r["method"], r["metric"]) == ("2", "perfit", "mae") and r["stage"] == "stage 1 + 2"
    ]
    assert float(one["mean"]) == pytest.approx(1 / 3) and one["seeds"] == "0 1" and one["parameters"] == "500"
    (none,) = [r for r in rows if (r["table"], r["method"], r["metric"]) == ("2", "rag", "mae")]
    assert none["sd"] == "" and none["less_than_oppu_percent"] == ""
