"""The verdict: plain sentences that claim nothing which the intervals do not show."""

import math

import pytest

from fed.answering.comparisons import PAIRS
from server_strategy.report.verdict import verdict


def report(base, stage1, both, swapped, *, half=0.01, p=0.001, rouge=(None,) * 4, **extra):
    """A report whose arms have these losses per token (None: the arm could not be computed).

    half: half of every interval's width; None: no intervals. rouge: the arms' ROUGE-L, if answers were given.
    """
    names = ("base", "stage1", "stage1+2", "swapped")
    arms = {
        arm: None if loss is None else {"loss_per_token": loss} | ({} if r is None else {"rougeL": r})
        for arm, loss, r in zip(names, (base, stage1, both, swapped), rouge, strict=True)
    }
    rows = []
    for a, b in PAIRS:
        for metric in arms[a] or {} if arms[b] else {}:
            gap = arms[b][metric] - arms[a][metric]
            known = half is not None and math.isfinite(gap)
            low, high = (gap - half, gap + half) if known else (None, None)
            rows.append({"a": a, "b": b, "metric": metric, "difference": gap, "low": low, "high": high,
                         "p": p if known else None, "users": 8})  # fmt: skip
    return {"arms": arms, "users": [], "comparisons": rows, **extra}


def test_a_run_in_which_everything_is_told_apart():
    assert verdict(report(4.608, 3.876, 3.829, 3.894)) == [
        "Personalization helped: against stage 1, private parts change loss per token by -0.047 [-0.057, -0.037] on "
        "average over 8 users (p 0.001).",
        "Stage 1 + 2 lowers loss per token from 4.61 to 3.83: better than the base model.",
        "Swapping users' private parts raises loss per token from 3.83 to 3.89: as it should if they are personal.",
        "In every metric all arms are told apart, in the order that is expected.",
    ]


def test_the_same_numbers_with_wide_intervals_claim_nothing():
    text = " ".join(verdict(report(4.608, 3.876, 3.829, 3.894, half=1.0, p=0.8)))
    assert text.startswith("Whether personalization helped cannot be told: against stage 1, private parts change ")
    assert "by -0.047 [-1.05, +0.953] on average over 8 users (p 0.800), which can be chance." in text
    assert "from 4.61 to 3.83: not told apart from the base model." in text
    assert "not told apart, so this run does not show that they are personal" in text
    assert "helped:" not in text and "better" not in text and "expected" not in text


def test_an_interval_without_zero_is_not_enough_where_the_corrected_p_is_large():
    assert verdict(report(4.6, 3.9, 3.8, 3.9, p=0.06))[0].startswith("Whether personalization helped cannot be told")


def test_a_run_in_which_personalization_hurt_says_so():
    sentences = verdict(report(2.0, 1.0, 1.5, 1.2))
    assert sentences[0].startswith("Personalization hurt: against stage 1, private parts change loss per token by +0.5")
    assert "lowers loss per token from 1.50 to 1.20: another user's private part is better than one's own." in (
        " ".join(sentences)
    )
    assert sentences[-1] == (
        "Against what is expected: loss per token: stage 1 + 2 is worse than stage 1; "
        "loss per token: swapped is better than stage 1 + 2."
    )


def test_answers_have_a_word_of_their_own():
    text = verdict(report(4.6, 3.9, 3.8, 3.9, rouge=(0.1, 0.2, 0.15, 0.15)))
    assert text[1] == "What they do to the answers: ROUGE-L worse."
    assert text[-1] == "Against what is expected: ROUGE-L: stage 1 + 2 is worse than stage 1."


def test_a_run_that_made_the_model_worse():
    assert verdict(report(2.0, 2.5, 3.0, 3.1))[1] == (
        "Stage 1 + 2 raises loss per token from 2.00 to 3.00: worse than the base model."
    )


def test_without_a_swap_test_or_without_stage_2_nothing_is_claimed_about_it():
    no_swap = " ".join(verdict(report(4.6, 3.9, 3.8, None)))
    assert "There is no swap test" in no_swap
    assert verdict(report(4.6, 3.9, None, None)) == [
        "Nothing is personalized here: no user has a private part.",
        "Stage 1 lowers loss per token from 4.60 to 3.90: better than the base model.",
        "In every metric all arms are told apart, in the order that is expected.",
    ]
    assert verdict(report(None, None, None, None)) == ["No arm could be computed, so there is nothing to compare."]


def test_a_method_without_a_stage_1_is_held_against_the_base_model():
    assert verdict(report(4.6, None, 3.8, 3.9))[0].startswith(
        "Personalization helped: against base, private parts change loss per token by -0.8 [-0.81, -0.79]"
    )


@pytest.mark.parametrize("without", [{"half": None}, {"comparisons": []}])
def test_one_user_or_a_report_without_comparisons_claims_nothing(without):
    sentences = verdict(report(4.6, 3.9, 3.8, 3.9, **without))
    assert sentences[0] == (
        "Whether personalization helped cannot be told: that takes a finite loss per token of two users or more."
    )
    assert "better" not in " ".join(sentences)


def test_the_swapped_average_over_fewer_users_is_pointed_out():
    one = {"loss_per_token": 1.0}
    users = [{"arms": {"stage1+2": one, "swapped": one}}, {"arms": {"stage1+2": one, "swapped": None}}]
    text = " ".join(verdict(report(4.6, 3.9, 3.8, 3.9, users=users)))
    assert "1 of 2 users had nobody to swap with" in text
    assert "nobody to swap" not in " ".join(verdict(report(4.6, 3.9, 3.8, 3.9, users=users[:1])))


def test_golds_that_are_cut_are_told_and_where_none_is_there_is_no_word_of_it():
    told = verdict(
        report(
            4.6,
            3.9,
            3.8,
            3.9,
            ceiling={"golds": 60, "cut_golds": 12, "rougeL": 0.9312},
            settings={"max-new-tokens": 24},
        )
    )
    assert (
        "max-new-tokens = 24 cuts 12 of 60 golds (20 %): golds cut there have ROUGE-L 0.931, about the best in reach."
    ) in told
    for none in (None, {"golds": 60, "cut_golds": 0, "rougeL": 1.0}):
        assert "cuts" not in " ".join(verdict(report(4.6, 3.9, 3.8, 3.9, ceiling=none, settings={})))


def test_a_diverged_run_is_not_praised():
    text = " ".join(verdict(report(4.6, 3.9, math.nan, 3.8)))
    assert "no finite difference" in text and "cannot be told" in text and "helped:" not in text
    assert "all arms are told apart" not in text
