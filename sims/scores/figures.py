"""Differences between methods as a figure: a dot and its 95 % interval each, as inline SVG in the page's colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from server_strategy.report.tables import METRICS

_METRICS = {metric.key: metric for metric in METRICS}
WIDTH, LEFT, RIGHT, ROW, HEAD, FOOT = 560, 190, 20, 22, 14, 40


def intervals(gaps: Sequence[dict[str, Any]]) -> str:
    """One metric's differences, a row each; the words say on which side the first method is better.

    Args:
        gaps: rows of `scores.rows.differences` of one task and one metric, at least one; one without interval has no
            mark.
    """
    metric = _METRICS[gaps[0]["metric"]]
    marked = [gap for gap in gaps if gap["low"] is not None]
    reach = max((abs(gap[key]) for gap in marked for key in ("value", "low", "high")), default=0.0) or 1.0
    height = HEAD + ROW * len(gaps) + FOOT
    bottom = height - FOOT

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (value / reach + 1) / 2

    better = "left" if metric.lower_is_better else "right"
    words = f"{gaps[0]['ours']} minus the other, {metric.label} ({better} of the line: {gaps[0]['ours']} is better)"
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" font-size="12" fill="var(--ink)" '
        f'aria-label="{escape(words)}">',
        f'<line x1="{x(0):.1f}" y1="4" x2="{x(0):.1f}" y2="{bottom}" stroke="var(--faint)" stroke-dasharray="4 3"/>',
    ]
    for number, gap in enumerate(gaps):
        y = HEAD + ROW * number + ROW / 2
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(gap["theirs"][:28])}</text>')
        if gap["low"] is None:
            continue
        colour = "var(--faint)"
        if gap["real"]:
            colour = "var(--stage12)" if (gap["value"] < 0) == metric.lower_is_better else "var(--swapped)"
        parts.append(
            f'<line x1="{x(gap["low"]):.1f}" y1="{y:.1f}" x2="{x(gap["high"]):.1f}" y2="{y:.1f}" stroke="{colour}" '
            f'stroke-width="2"/><circle cx="{x(gap["value"]):.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
        )
    for value, anchor in ((-reach, "start"), (0.0, "middle"), (reach, "end")):
        label = f"{value:+.3g}" if value else "0"
        parts.append(
            f'<text x="{x(value):.1f}" y="{bottom + 14}" text-anchor="{anchor}" fill="var(--faint)">{label}</text>'
        )
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{bottom + 32}" text-anchor="end" font-size="11">{escape(words)}</text>')
    return "".join([*parts, "</svg>"])
