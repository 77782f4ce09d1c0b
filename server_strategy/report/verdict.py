"""What a run shows, in sentences made from its numbers alone: "better" only where two arms can be told apart."""

import math

from server_strategy.report.comparisons import NOT_TOLD, comparison, comparisons_of, judged
from server_strategy.report.tables import ARMS, Metric, Report, metrics_of, p_shown, value_of


def verdict(report: Report) -> list[str]:
    """The sentences, the first of which says whether personalization helped."""
    metrics = metrics_of(report)
    if not metrics:
        return ["No arm could be computed, so there is nothing to compare."]
    sentences = [*_personalization(report, metrics), *_against_base(report, metrics[0]), *_swapped(report, metrics[0])]
    sentences += ceiling(report)
    rows = comparisons_of(report)
    # Whoever is swapped is meant to lose, every other second arm to win.
    wrong = [
        f"{metric.label}: {ARMS[row['b']]} is {verdict} than {ARMS[row['a']]}"
        for metric, row in rows
        if (verdict := judged(metric, row)) == ("better" if row["b"] == "swapped" else "worse")
    ]
    if wrong:
        sentences.append(f"Against what is expected: {'; '.join(wrong)}.")
    elif rows and all(judged(metric, row) != NOT_TOLD for metric, row in rows):
        sentences.append("In every metric all arms are told apart, in the order that is expected.")
    return sentences


def ceiling(report: Report) -> list[str]:
    """That max-new-tokens cuts golds, where it does, and what ROUGE-L that leaves; else nothing."""
    found = report.get("ceiling")
    if not found or not found["cut_golds"]:
        return []
    cut, golds = found["cut_golds"], found["golds"]
    return [
        f"max-new-tokens = {report['settings'].get('max-new-tokens')} cuts {cut:,} of {golds:,} golds "
        f"({100 * cut / golds:.0f} %): golds cut there have ROUGE-L {found['rougeL']:.3f}, about the best in reach."
    ]


def _personalization(report: Report, metrics: list[Metric]) -> list[str]:
    """Whether the private part helps: by the loss, then in the answers."""
    arms = report["arms"]
    if arms.get("stage1+2") is None:
        return ["Nothing is personalized here: no user has a private part."]
    against = "base" if arms.get("stage1") is None else "stage1"
    loss = metrics[0]
    row = comparison(report, against, "stage1+2", loss)
    lead = {"better": "Personalization helped", "worse": "Personalization hurt"}.get(
        judged(loss, row), "Whether personalization helped cannot be told"
    )
    if row is None or row["low"] is None:
        return [f"{lead}: that takes a finite {loss.label} of two users or more."]
    numbers = f"{row['difference']:+.3g} [{row['low']:+.3g}, {row['high']:+.3g}]"
    chance = ", which can be chance" if judged(loss, row) == NOT_TOLD else ""
    sentences = [
        f"{lead}: against {ARMS[against]}, private parts change {loss.label} by {numbers} on average over "
        f"{row['users']:,} users (p {p_shown(row['p'])}){chance}."
    ]
    answers = [(m, comparison(report, against, "stage1+2", m)) for m in metrics if not m.key.startswith("loss")]
    words = [f"{metric.label} {judged(metric, of)}" for metric, of in answers if of is not None]
    if words:
        sentences.append(f"What they do to the answers: {', '.join(words)}.")
    return sentences


def _against_base(report: Report, metric: Metric) -> list[str]:
    """What all training did to the base model."""
    base = value_of(report["arms"], "base", metric)
    for arm, name in (("stage1+2", "Stage 1 + 2"), ("stage1", "Stage 1")):
        value = value_of(report["arms"], arm, metric)
        if value is not None and base is not None:
            told = judged(metric, comparison(report, "base", arm, metric))
            return [f"{name} {_moves(metric, base, value, _digits(base, value))}: {_beside(told, 'the base model')}."]
    return [f"There is no {metric.label} to compare with the base model."]


def _swapped(report: Report, metric: Metric) -> list[str]:
    """What another user's private part does, and how many users had nobody to swap with."""
    personal, swapped = (value_of(report["arms"], arm, metric) for arm in ("stage1+2", "swapped"))
    if personal is None:
        return []
    if swapped is None:
        return ["There is no swap test: it needs two users with private parts on one SuperNode."]
    meaning = {
        "worse": "as it should if they are personal",
        "better": "another user's private part is better than one's own",
        NOT_TOLD: "not told apart, so this run does not show that they are personal",
    }[judged(metric, comparison(report, "stage1+2", "swapped", metric))]
    moves = _moves(metric, personal, swapped, _digits(personal, swapped))
    sentences = [f"Swapping users' private parts {moves}: {meaning}."]
    users = [user.get("arms") or {} for user in report.get("users") or []]
    unswapped = sum(bool(arms.get("stage1+2")) and not arms.get("swapped") for arms in users)
    if unswapped:
        sentences.append(
            f"{unswapped:,} of {len(users):,} users had nobody to swap with: the swapped average leaves "
            "them out, so compare own with swapped user by user."
        )
    return sentences


def _beside(told: str, what: str) -> str:
    return f"not told apart from {what}" if told == NOT_TOLD else f"{told} than {what}"


def _digits(*values: float) -> int:
    """The fewest decimals, two to four, at which different values still look different."""
    different = set(values)
    return next((digits for digits in (2, 3) if len({f"{v:.{digits}f}" for v in different}) == len(different)), 4)


def _moves(metric: Metric, before: float, after: float, digits: int) -> str:
    """How a pooled score moves from one arm to another, whether or not the two are told apart."""
    if not math.isfinite(after - before):
        return f"has {metric.label} {after:.{digits}f} after {before:.{digits}f} (no finite difference)"
    if after == before:
        return f"leaves {metric.label} at {after:.{digits}f}"
    verb = "lowers" if after < before else "raises"
    return f"{verb} {metric.label} from {before:.{digits}f} to {after:.{digits}f}"
