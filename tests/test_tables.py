"""Tables read by column name: the right numbers or one clear fault, never another column's."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finetune.tables import TableFault, open_table

HEADER = "Time [s], RESP, PLETH, II"
ROWS = ["0,1.5,2.5,3.5", "1,1.25,2.25,3.25", "2,-1,nan,1e-3"]
PLETH = [2.5, 2.25, np.nan]


def column(path: Path, name: str = "PLETH") -> list[float]:
    with open_table(path) as table:
        return table.numbers([name])[0].tolist()


def written(folder: Path, text: str, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


SAME = {
    "as published": lambda: "\n".join([HEADER, *ROWS]) + "\n",
    "a comma at the end of each row": lambda: "\n".join([HEADER, *(row + "," for row in ROWS)]) + "\n",
    "a comma at the end of every line": lambda: "".join(line + ",\n" for line in (HEADER, *ROWS)),
    "several commas at the end of some": lambda: "\n".join([HEADER, ROWS[0] + ",,,", *ROWS[1:]]),
    "ends of lines as on Windows": lambda: "\r\n".join([HEADER, *ROWS]) + "\r\n",
    "a byte order mark": lambda: "\ufeff" + "\n".join([HEADER, *ROWS]),
    "blank lines": lambda: "\n\n".join([HEADER, *ROWS, ""]),
    "quoted fields": lambda: "\n".join([HEADER, '"0","1.5","2.5","3.5"', *ROWS[1:]]),
    "other words for a missing value": lambda: "\n".join([HEADER, *ROWS]).replace("nan", "NA"),
    "a long text with ends of lines": lambda: "\n".join(
        [HEADER + ", note", *(f'{row},"a, b\nc"' for row in ROWS)]
    ),
}


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
@pytest.mark.parametrize("form", SAME)
def test_the_same_table_in_another_form_holds_the_same_numbers(tmp_path: Path, form: str, name: str) -> None:
    np.testing.assert_array_equal(column(written(tmp_path, SAME[form](), name)), PLETH)


REFUSED = {
    "row names without a name": (
        "\n".join([HEADER, *(f"r{i},{row}" for i, row in enumerate(ROWS))]),
        "line 2 has 5 fields; expected as many as the names in its first line, 4",
    ),
    "one row with a field too many": ("\n".join([HEADER, *ROWS[:2], "2,1,2,3,4"]), "line 4 has 5 fields"),
    "decimal commas": (
        "\n".join([HEADER, *(row.replace(",", ";").replace(".", ",").replace(";", ",") for row in ROWS)]),
        "line 2 has 7 fields; .* decimal commas",
    ),
    "quoted decimal commas": (
        "\n".join([HEADER, '0,"1,5","2,5","3,5"']),
        "line 2: column PLETH is '2,5'; expected a number such as 0.5",
    ),
    "a field too few": ("\n".join([HEADER, ROWS[0], "1,2,3"]), "line 3 has 3 fields; .* truncated"),
    "semicolons": (HEADER.replace(",", ";") + "\n0;1,5;2,5;3,5\n", "fields are parted by semicolons"),
    "tabs": (HEADER.replace(",", "\t") + "\n0\t1\t2\t3\n", "fields are parted by tabs"),
    "no line of names": ("\n".join(ROWS), "its first line is 0, 1.5, 2.5, 3.5; expected names"),
    "nothing": ("", "it is an empty file"),
    "an empty line of names": ("\n1,2\n", "its first line is empty"),
    "the name twice": (HEADER + ", PLETH\n0,1,2,3,4\n", "column 'PLETH' is there 2 times"),
    "another column's unit": (HEADER + "\n0,1,2 mV,3\n", "line 2: column PLETH is '2 mV'"),
    "an underscore": (HEADER + "\n0,1,1_0,3\n", "line 2: column PLETH is '1_0'"),
    "a line number behind a long text": (
        f'{HEADER}, note\n0,1,2,3,"a\nb"\n0,1,x,3,c\n',
        "line 4: column PLETH is 'x'",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_a_table_that_could_be_read_in_two_ways_is_refused(tmp_path: Path, form: str) -> None:
    text, message = REFUSED[form]

    with pytest.raises(TableFault, match=message):
        column(written(tmp_path, text))


def test_a_table_in_utf_16_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("\n".join([HEADER, *ROWS]), encoding="utf-16")

    with pytest.raises(TableFault, match="UTF-16"):
        column(tmp_path / "x.csv")


def test_a_blank_line_among_the_values_of_one_column_is_a_missing_value(tmp_path: Path) -> None:
    assert np.isnan(column(written(tmp_path, "PLETH\n1\n\n3\n\n\n"))).tolist() == [False, True, False]


CELLS = st.text("0123456789.,;-eE+ nNaA\"\n\t'_x", max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=5),
    line=st.integers(0, 5),
    cell=CELLS,
    place=st.integers(0, 4),
)
def test_a_cell_too_many_leaves_every_number_or_is_a_fault(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]], line: int, cell: str, place: int
) -> None:
    assume(not {",", "\n"} <= set(cell))  # such a cell may make two whole rows of one
    rows = [["A", "B", "C"], *([repr(value) for value in row] for row in values)]
    line = min(line, len(rows) - 1)
    rows[line].insert(place, cell)
    path = written(tmp_path_factory.mktemp("t"), "\n".join(",".join(row) for row in rows) + "\n")

    for number, name in enumerate("ABC"):
        try:
            read = column(path, name)
        except TableFault:
            continue
        assert read == [row[number] for row in values], (rows, name)
