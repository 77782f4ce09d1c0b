"""The HTML report: complete, safe against hostile strings, free of requests, equal for equal reports."""

import copy
import json
import random
import re
from html.parser import HTMLParser

import pytest

from fed.answering.comparisons import PAIRS
from server_strategy.report.page import write_page
from server_strategy.report.svg import COLOURS
from server_strategy.report.tables import METRICS

METRIC_KEYS = {"LaMP_4": ("rouge1", "rougeL"), "LaMP_2N": ("accuracy", "f1"), "LaMP_3": ("mae", "rmse")}
LOSSES = {"base": 4.6081, "stage1": 3.8762, "stage1+2": 3.8293, "swapped": 3.8944}


def comparisons(task, users, rng):
    """Made-up rows, every third told apart."""
    rows = []
    for a, b in PAIRS:
        for metric in ("loss_per_token", *METRIC_KEYS[task]):
            gap, p = rng.uniform(-1, 1), (0.01, 0.2, 0.9)[len(rows) % 3]
            half = abs(gap) * (0.5 if p == 0.01 else 1.5)
            rows.append({"a": a, "b": b, "metric": metric, "difference": gap, "low": gap - half, "high": gap + half,
                         "p": p, "p_raw": p / 4, "p_sign_flip": p / 3, "users": users})  # fmt: skip
    return rows


def report(users=6, task="LaMP_4", *, swapped=True):
    """A complete report with made-up numbers, different in every place."""
    rng = random.Random(f"{users}-{task}")

    def arms(noise):
        values = {
            arm: {"loss_per_token": loss + noise * rng.gauss(0, 0.1)}
            | {key: rng.uniform(0.1, 0.9) for key in METRIC_KEYS[task]}
            for arm, loss in LOSSES.items()
        }
        return values if swapped else values | {"swapped": None}

    def way(payload, messages):
        return {"payload": payload, "record": payload + 200, "wire": payload + 1234, "messages": messages}

    return {
        "app": "lamp4",
        "method": "perfit",
        "engine": "bank",
        "seed": 7,
        "git": "3f2c9d1",
        "base_model": {"name": "SmolLM2-135M-Instruct", "parameters": 134_515_008, "hidden_size": 576,
                       "layers": 30, "dtype": "bfloat16", "device": "cpu"},
        "data": {"source": "made up", "task": task, "users": users, "train_items": 1240, "queries": 240},
        "settings": {"average": "svd", "learning-rate": 0.001, "prompt": "{input}\nheadline:"},
        "arms": arms(0),
        "users": [{"user_id": f"user-{number}", "arms": arms(1)} for number in range(users)],
        "comparisons": comparisons(task, users, rng),
        "bytes": {
            "stage1": {"down": way(276_801, 50), "up": way(276_802, 51)},
            "stage2": {"down": way(5_536, 6), "up": {"payload": 0, "record": 0, "wire": 480, "messages": 6}},
            "evaluate": {"up": {"payload": 0, "record": 0, "wire": 999, "messages": 6}},
        },
        "parameters": {"stage1": 27_672, "stage2": 13_836, "base": 134_515_008},
        "rounds": [{"round": n, "users": 3, "loss": 4 - n / 7, "seconds": 9, "orthogonality_error": n / 1e7}
                   for n in (1, 2, 3)],
        "seconds": {"total": 412.3, "stage1": 198.1, "stage2": 92.7, "evaluate": 88.3},
    }  # fmt: skip


@pytest.fixture
def html(tmp_path):
    """Write a report's page and read it back."""

    def page(one):
        path = tmp_path / "run" / "report.html"
        write_page(one, path)
        assert [file.name for file in path.parent.iterdir()] == ["report.html"]  # nothing temporary stays
        return path.read_text(encoding="utf-8")

    return page


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """The page of `report()`, made once for the tests that only read it."""
    path = tmp_path_factory.mktemp("usual") / "report.html"
    write_page(report(), path)
    return path.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects tags and attributes, and checks that every element is closed in order."""

    VOID = {"meta", "br", "link", "img"}

    def __init__(self, text):
        super().__init__()
        self.seen, self.stack, self.text = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("task", METRIC_KEYS)
def test_every_number_of_the_arms_is_on_the_page(html, task):
    one = report(task=task)
    page = html(one)
    labels = {metric.key: metric.label for metric in METRICS}
    for arm, values in one["arms"].items():
        for key, value in values.items():
            assert f">{value:.4f}<" in page, (arm, key)
            assert f">{value:.3f}</text>" in page, (arm, key)  # and in a chart
            assert labels[key] in page


@pytest.mark.parametrize("task", METRIC_KEYS)
def test_every_comparison_is_on_the_page_with_its_interval_p_users_and_word(html, task):
    one = report(task=task)
    page = html(one).replace("−", "-")
    for row in one["comparisons"]:
        numbers = f">{row['difference']:+.4f}<small>{row['low']:+.4f} to {row['high']:+.4f}</small><"
        assert f"{numbers}/td><td>{row['p']:.3f}</td><td>6<small>" in page, row
    assert page.count("not told apart") >= sum(row["p"] > 0.05 for row in one["comparisons"])
    words = re.findall(r"<strong>(better|worse)</strong>", page)
    assert len(words) == sum(row["p"] < 0.05 for row in one["comparisons"])
    assert "Holm" in page and "swapped - stage 1 + 2" in page


def test_a_report_without_comparisons_still_has_a_page(html):
    one = report()
    del one["comparisons"]
    page = html(one)
    assert "cannot be told" in page and "Holm" not in page


def test_facts_bytes_rounds_and_settings_are_on_the_page(usual):
    for part in ("lamp4", "perfit, bank", "SmolLM2-135M-Instruct, 134,515,008 parameters", "bfloat16 on cpu",
                 "3f2c9d1, 7", "6 min 52 s", "276,801 B", "276,802 B", "270.31 KiB", "27,672", "0.0206 %",
                 "0.0103 %", "learning-rate", "{input}\\nheadline:", "3.8571", "1.0e-07"):  # fmt: skip
        assert part in usual, part
    assert "never leaves the client: 0 array bytes on the wire" in usual


def test_array_bytes_sent_up_after_stage_1_are_reported_and_the_promise_is_not_made(html):
    one = report()
    one["bytes"]["evaluate"]["up"]["payload"] = 4096
    page = html(one)
    assert "4,096 array bytes went up after stage 1" in page
    assert "0 array bytes on the wire" not in page


def test_the_promise_is_not_made_where_stage_2_was_not_counted(html):
    one = report()
    nothing = {"payload": 0, "record": 0, "wire": 0, "messages": 0}
    one["bytes"] = {phase: {"down": nothing, "up": nothing} for phase in one["bytes"]}
    assert "0 array bytes on the wire" not in html(one)


def test_charts_carry_their_labels_as_text(usual):
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", usual)
    for label in ("Loss per token: lower is better", "ROUGE-L: higher is better", "loss per token (nats)",
                  "stage 1 + 2", "swapped", "Stage 1 + 2 against stage 1", "user-3",
                  "Own private part against a swapped one", "Stage 1 training loss: lower is better", "round",
                  "Bytes by phase and direction", "stage 1 down", "payload (tensors)"):  # fmt: skip
        assert label in texts, label


def test_an_arm_has_the_same_colour_in_every_chart_and_the_table(usual):
    for name in ("base", "stage1", "stage12", "swapped"):
        assert f"background:var(--{name})" in usual
        assert re.search(rf'<use [^>]*style="fill: var\(--{name}\)', usual), name
    light = {colours[0] for colours in COLOURS.values()}
    assert not [colour for colour in light if colour in usual.split("</style>", 1)[1]]


def test_a_hostile_user_id_is_text_and_nothing_else(html):
    one = report()
    evil = "<script>alert('x')</script>\"onload=\"$\\frac{1}{0}$ --> &amp; \u202e\ud800\n" + "z" * 100_000
    one["users"][0]["user_id"] = evil
    for key in ("app", "git", "method", "engine"):
        one[key] = evil
    one["settings"] = {evil: evil}
    one["base_model"]["name"] = one["data"]["task"] = one["data"]["source"] = evil
    page = html(one)
    tags = Tags(page)
    assert tags.stack == [] and "script" not in {tag for tag, _ in tags.seen}
    assert not [attributes for _, attributes in tags.seen if "onload" in attributes]
    assert "&lt;script&gt;" in page and "\u202e" not in page and len(page) < 300_000
    assert "default-src 'none'" in page


def test_the_page_loads_nothing(usual):
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\((?!#)", usual)
    tags = Tags(usual).seen
    assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe", "object", "base"}
    links = [
        value for _, attributes in tags for key, value in attributes.items() if key in ("src", "href", "xlink:href")
    ]
    assert links and all(link.startswith("#") for link in links)


def test_ids_inside_the_page_are_unique_so_no_chart_borrows_from_another(usual):
    ids = [attributes["id"] for tag, attributes in Tags(usual).seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', usual))
    assert wanted <= set(ids)


def test_equal_reports_give_equal_bytes_and_the_report_is_left_alone(html, usual):
    one = report()
    before = copy.deepcopy(one)
    assert html(json.loads(json.dumps(one))) == usual == html(one)
    assert one == before


def test_a_run_without_a_swap_test_says_so(html):
    page = html(report(swapped=False))
    assert "There is no swap test" in page and "not computed" in page
    assert "Own private part against a swapped one" not in page


def test_a_user_whose_arms_are_missing_is_counted_as_missing(html):
    one = report()
    one["users"][0]["arms"] = {"base": None, "stage1": None, "stage1+2": None, "swapped": None}
    page = html(one)
    assert "1 without this number." in page and "of 5 users" in page


def test_a_run_that_computed_nothing_still_has_a_page(html):
    one = report(users=1)
    empty = dict.fromkeys(LOSSES)
    one |= {
        "arms": empty,
        "rounds": [],
        "bytes": {},
        "settings": {},
        "users": [{"user_id": "u", "arms": empty}],
    }
    assert "No arm could be computed" in html(one)


def test_one_user_and_one_round_are_enough(html):
    one = report(users=1, swapped=False)
    one["rounds"] = one["rounds"][:1]
    page = html(one)
    assert "Better for" in page and "of 1 users" in page and "The one round" in page


def test_sixty_users_have_a_bar_each_and_five_hundred_an_area(html):
    def names(page):
        return re.findall(r"<text[^>]*>(user-\d+)</text>", page)

    assert len(names(html(report(users=60)))) == 120
    many = html(report(users=500))
    assert names(many) == [] and "users, sorted by this difference" in many
    assert "100 users who gain most and 100 who gain least, of 500" in many


def test_a_page_of_ten_thousand_users_stays_small(html):
    assert len(html(report(users=10_000))) < 500_000


def test_numbers_that_are_not_finite_are_shown_and_do_not_break_a_chart(html):
    one = report()
    one["arms"]["stage1+2"]["loss_per_token"] = float("nan")
    one["rounds"][1]["loss"] = float("inf")
    one["users"][2]["arms"]["stage1"]["loss_per_token"] = float("nan")
    page = html(one)
    assert ">nan<" in page and "no finite difference" in page


def test_losses_of_stage_2_are_drawn_when_the_report_has_them(html, usual):
    one = report()
    assert "Stage 2 training loss" not in usual
    one["stage2_losses"] = [{"epoch": 1, "loss": 3.9}, {"epoch": 2, "loss": 3.4}]
    assert "Stage 2 training loss" in html(one)


def test_a_page_that_cannot_be_made_leaves_the_old_one_in_place(tmp_path):
    path = tmp_path / "report.html"
    write_page(report(), path)
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_page({"method": "perfit"}, path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
