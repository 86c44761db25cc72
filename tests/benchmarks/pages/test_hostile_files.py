from benchmarks.measurements import read_lines
from benchmarks.pages.folders import DOCS, MEASUREMENTS
from benchmarks.pages.hostile_files import hostile_files

ROWS = read_lines(MEASUREMENTS / "fuzz.jsonl")


def test_the_page_has_the_table_of_the_raw_results():
    page = (DOCS / "robustness.md").read_text("utf-8")
    assert hostile_files(ROWS) in page, "python -m benchmarks.pages.hostile_files"


def test_the_last_line_has_the_sums_and_the_largest():
    few = [
        {**row, "reader": name, "inputs": n, "peak_megabytes": 1.5 * n}
        for row, name, n in zip(ROWS, ("a_b", "c"), (1000, 2), strict=False)
    ]
    lines = hostile_files(few).splitlines()
    assert lines[2].startswith("| a b | 1,000 |")
    assert lines[4].startswith("| all | 1,002 |")
    assert "| 1500.0 |" in lines[4]


def test_no_input_of_the_recorded_run_was_a_fault():
    for row in ROWS:
        assert row["read"] + row["refused"] == row["inputs"]
        assert row["peak_megabytes"] < 512
