from benchmarks.tables import tabulate

COLUMNS = {"memory, MB": ("memory", ",.0f", 1e-6), "images/s": ("rate", ".1f")}


def row(candidate, median, **more):
    name = {"case": "a", "candidate": candidate}
    return {**name, "median": median, "spread": 0.05, **more}


def test_other_candidates_have_the_ratio_of_their_time_to_ours():
    rows = [
        row("ours", 0.01, memory=2e6),
        row("torch", 0.015, memory=3e6),
        row("copy", 0.01, limit=True),
    ]
    headings, lines = tabulate(rows, COLUMNS)
    # No row has a rate.
    expected = ["case", "candidate", "ms", "spread", "memory, MB", "ours faster by"]
    assert headings == expected
    assert lines == [
        ["a", "ours", "10.00", "5%", "2", ""],
        ["", "torch", "15.00", "5%", "3", "1.50"],
        ["", "copy", "10.00", "5%", "", ""],
    ]


def test_without_peers_their_columns_are_left_out():
    headings, lines = tabulate([row("ours", 0.01, rate=100.0)], COLUMNS)
    assert headings == ["case", "candidate", "ms", "spread", "images/s"]
    assert lines == [["a", "ours", "10.00", "5%", "100.0"]]


def test_a_row_without_a_time_shows_the_error():
    failed = {"case": "a", "candidate": "torch", "error": "out of memory"}
    headings, lines = tabulate([row("ours", 0.01), failed], {})
    assert headings[-1] == "not measured"
    assert lines[1] == ["", "torch", "", "", "out of memory"]
