"""sims/RESULTS.md says nothing that its tables do not: a sentence's numbers are in the cells that it names.

The convention, as the file's head tells it:

    **T2.** stands before a table and names it.
    (T2: perfit × LaMP_4; T3: 0 × swapped)   ends a claim, a bullet, and names the cells that it rests on: a row by its
                                             first cell (`first / second` where that is not enough), a column, * for all
    0.5 − 0.3 = 0.2                          a number that no cell has is reckoned from two that cells have
    [low, high], p = …; untested; exact      how sure a comparison is
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

RESULTS = Path(__file__).resolve().parents[1] / "sims" / "RESULTS.md"
NUMBER = re.compile(r"(?<![\w.])[+-]?\d[\d,]*\.?\d*(?![\w])")
CELLS = re.compile(r"\((T\d+: [^()]*(?:\([^()]*\)[^()]*)*)\)\.?$")
COMPARING = re.compile(
    r"\b(ahead|behind|better|worse|higher|lower|lowers?|rises?|rose|falls?|fell|beats?|above|below|loses?|wins?|"
    r"more|fewer|less|larger|smaller|best|worst|helps?|hurts?|harms?)\b"
)
SURE = re.compile(r"\[[^\]]*\d[^\]]*\].*\bp\b|\buntested\b|\bexact\b")


ALL = "all"  # a row or column that is named *


class Claim(NamedTuple):
    """A bullet: its words in one line, and the cells that it names, as (table, row, column)."""

    words: str
    cells: list[tuple[str, str, str]]


def plain(text: str) -> str:
    return re.sub(r"[*`]", "", text).replace("−", "-").strip()


def tables_of(text: str) -> dict[str, list[list[str]]]:
    """name -> rows of cells, the head first, of the tables that a line `**T1.**` stands before."""
    tables: dict[str, list[list[str]]] = {}
    name = ""
    for line in text.splitlines():
        if named := re.match(r"\*\*(T\d+)\.\*\*", line):
            name = named[1]
            assert name not in tables, f"{name} is there twice"
            tables[name] = []
        elif line.startswith("|") and name:
            cells = [plain(cell) for cell in line.strip().strip("|").split("|")]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                tables[name].append(cells)
        elif tables.get(name) and not line.startswith("|"):
            name = ""
    return tables


def bullets_of(text: str) -> list[str]:
    """Every bullet as one line."""
    bullets: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith("- "):
            bullets.append(line[2:])
            inside = True
        elif inside and line.startswith("  "):
            bullets[-1] += " " + line.strip()
        else:
            inside = False
    return bullets


def paragraphs_of(text: str) -> list[str]:
    """What is neither a table, a bullet, a heading nor code, and not the head, in which the convention stands."""
    blocks = text.partition("\n## ")[2].split("\n\n")
    marks = ("|", "- ", "#", "    ", "**T")
    return [block for block in blocks if block.strip() and not block.startswith(marks)]


def claim_of(bullet: str) -> Claim:
    """Raises ValueError where the bullet names no cell."""
    end = CELLS.search(bullet)
    if not end:
        raise ValueError(f"a claim must end with the cells that it rests on, such as (T2: perfit × LaMP_4): {bullet}")
    cells, table = [], ""
    for part in end[1].split("; "):
        named = re.match(r"(T\d+): ", part)
        table = named[1] if named else table
        row, column = re.sub(r"^T\d+: ", "", part).split(" × ")
        cells.append((table, *(ALL if name.strip() == "\\*" else plain(name) for name in (row, column))))
    return Claim(plain(bullet[: end.start()]), cells)


def cell_of(tables: dict[str, list[list[str]]], table: str, row: str, column: str) -> str:
    """The cell's text, or those of a row or column that is named `*`.

    Raises:
        ValueError: there is no such cell, or more than one.
    """
    head, *rows = tables[table]
    columns = [place for place, name in enumerate(head) if column in (name, ALL)]
    # A first cell that is empty is the one above it.
    filled: list[list[str]] = []
    for cells in rows:
        filled.append([cells[0] or filled[-1][0], *cells[1:]] if filled else cells)
    found = [cells for cells in filled if row in (cells[0], f"{cells[0]} / {cells[1]}", ALL)]
    if (len(columns) != 1 and column != ALL) or (len(found) != 1 and row != ALL):
        raise ValueError(f"{table} must have one cell {row!r} × {column!r}, and has {len(found)} × {len(columns)}")
    return " ".join(cells[place] for cells in found for place in columns)


def numbers_in(text: str) -> list[str]:
    """Numbers with a decimal point or a thousands comma; whole ones are counts of people and things."""
    return [number for number in NUMBER.findall(plain(text)) if "." in number.rstrip(".,") or re.search(r",\d", number)]


def value(number: str) -> float:
    return float(number.replace(",", "").rstrip("."))


def unfounded(claim: Claim, tables: dict[str, list[list[str]]]) -> list[str]:
    """The numbers of a claim that are in none of its cells, nor reckoned from those that are."""
    cells = " ".join(cell_of(tables, *cell) for cell in claim.cells)
    known = {value(number) for number in numbers_in(cells)}
    words, wrong = claim.words, []
    for left, sign, right, result in re.findall(r"(\d[\d,.]*) ([-/]) (\d[\d,.]*) = (\d[\d.]*\d)", words):
        digits = len(result.partition(".")[2])
        reckoned = value(left) - value(right) if sign == "-" else value(left) / value(right)
        words = words.replace(f" = {result}", "", 1)
        wrong += [result] if abs(reckoned - value(result)) > 0.51 * 10**-digits else []
    for number in numbers_in(words):
        near = known if number[0] in "+-" else {abs(one) for one in known}
        wrong += [] if any(abs(value(number) - one) < 1e-9 for one in near) else [number]
    return wrong


TEXT = RESULTS.read_text(encoding="utf-8")
CLAIMS = [bullet for bullet in bullets_of(TEXT.partition("## What limits")[0]) if not bullet.startswith("`")]


@pytest.mark.parametrize("bullet", CLAIMS)
def test_every_number_of_a_sentence_is_in_the_cells_that_it_names(bullet):
    assert unfounded(claim_of(bullet), tables_of(TEXT)) == []


@pytest.mark.parametrize("bullet", CLAIMS)
def test_a_comparison_says_how_sure_it_is(bullet):
    words = claim_of(bullet).words
    assert not COMPARING.search(words) or SURE.search(words), words


def test_no_paragraph_compares_so_that_every_comparison_names_its_cells():
    assert [found[0] for block in paragraphs_of(TEXT) for found in COMPARING.finditer(block)] == []


def test_the_reader_of_results_sees_a_wrong_number_a_wrong_sign_and_a_missing_cell():
    text = """
**T1.** Losses.

| method | metric | A ↓ | B |
|---|---|---|---|
| perfit | loss | **1.25** | −0.2 [−0.3, −0.1], p = 0.004 |
| | ROUGE | 0.5 | 27,672 |

- It is lower by 0.2 [0.1, 0.3],
  p = 0.004 (T1: perfit / loss × B).
"""
    tables = tables_of(text)
    (bullet,) = bullets_of(text)
    assert claim_of(bullet) == Claim("It is lower by 0.2 [0.1, 0.3], p = 0.004", [("T1", "perfit / loss", "B")])
    assert cell_of(tables, "T1", "perfit / ROUGE", "B") == "27,672"

    def wrong(words, cells="T1: perfit / loss × B"):
        return unfounded(claim_of(f"{words} ({cells})."), tables)

    assert wrong("lower by −0.2 [−0.3, −0.1], p = 0.004") == [] and wrong("by +0.2") == ["+0.2"]
    assert wrong("by 0.21") == ["0.21"] and wrong("1.25") == ["1.25"] and wrong("of 27,672 and 12 users") == ["27,672"]
    both = "T1: perfit / loss × A ↓; perfit / ROUGE × A ↓"
    assert wrong("1.25 − 0.5 = 0.75", both) == [] and wrong("1.25 − 0.5 = 0.74", both) == ["0.74"]
    assert wrong("0.5 / 1.25 = 0.40", both) == [] and wrong("1.2 − 0.5 = 0.7", both) == ["1.2"]
    for cells in ("T1: oppu / loss × B", "T1: perfit × B", "T1: perfit / loss × C"):
        with pytest.raises(ValueError, match="must have one cell"):
            wrong("x", cells)
    with pytest.raises(ValueError, match="must end with the cells"):
        claim_of("It is better.")
    assert SURE.search("0.2 [0.1, 0.3], p = 0.004") and not SURE.search("ahead, 0.2 against 0.1, p = 0.004")
    assert COMPARING.search("oppu is ahead") and not COMPARING.search("seed 0 took 132 s")
    assert len(CLAIMS) > 15
