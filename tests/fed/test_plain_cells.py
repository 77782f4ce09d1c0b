"""No text of somebody else becomes a formula in the spreadsheet of who opens a table."""

import csv

import pytest
from console.files import write_csv

from fed.communication.ledger import Entry, Ledger
from fed.plain_cells import plain_cell

FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("//x")', "＝1", "-", "-a"]
PLAIN = ["alice", "1", "-1", "+2.5", "-1e-3", "a=b", "", " =1", "'=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_written_as_text_by_every_table(tmp_path, text):
    assert plain_cell(text) == f"'{text}"
    ledger = Ledger()
    ledger.add(Entry("stage1", 1, text, "up", 1, 2, 3))
    ledger.write_csv(tmp_path / "bytes.csv")
    write_csv(tmp_path / "table.csv", [{"user": text, "loss": -0.5}])
    for name in ("bytes.csv", "table.csv"):
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            (row,) = csv.DictReader(file)
        assert row["user"] == f"'{text}" and row.get("loss", "-0.5") == "-0.5"


@pytest.mark.parametrize("value", [*PLAIN, 1, -1, -0.5, None, True])
def test_numbers_and_other_texts_stay_as_they_are(value):
    assert plain_cell(value) == value
