from benchmarks.measurements import Measurements, write
from benchmarks.pages.folders import DOCS
from benchmarks.pages.performance import page, readme_table

PAGE = DOCS / "performance.md"
COMMAND = "python -m benchmarks.pages.performance"
HEADER = {
    "device": "1 x cpu",
    "processor": "p, 2 cores",
    "jax": "0.1",
    "commit": "abc",
    "command": "python -m benchmarks compile",
    "date": "2026-01-02T03:04:05+00:00",
}


def test_the_page_is_what_the_command_writes():
    assert PAGE.read_text() == page(), f"Write it again: {COMMAND}"


def test_the_readme_has_what_was_measured_last():
    readme = (DOCS.parent / "README.md").read_text()
    assert readme_table() in readme, f"print({readme_table.__module__}.readme_table())"


def test_a_device_has_a_section_and_a_benchmark_a_table(tmp_path):
    rows = [
        {
            "benchmark": "compile",
            "case": "resnet50",
            "candidate": candidate,
            "median": median,
            "spread": 0.1,
            "compiled": median - 1,
        }
        for candidate, median in (("cold", 4.0), ("warm", 2.0))
    ]
    write(tmp_path / "a.json", Measurements(HEADER, rows))
    write(
        tmp_path / "gpu" / "a.json", Measurements({**HEADER, "device": "1 x g"}, rows)
    )
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "gpu_a.png").touch()
    other = {**HEADER, "processor": "q, 2 cores"}
    newer = {**other, "jax": "0.2.1", "date": "2026-01-03T00:00:00+00:00"}
    write(tmp_path / "q.json", Measurements(newer, rows))
    huge = {**other, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    write(tmp_path / "z.json", Measurements(huge, rows))
    text = page(tmp_path, pictures)
    devices = [line for line in text.splitlines() if line.startswith("## 1 x ")]
    assert [line.removeprefix("## ") for line in devices] == [
        "1 x cpu, q, 2 cores, JAX 0.2",  # The newest.
        "1 x cpu, p, 2 cores, JAX 0.1",
        "1 x g, p, 2 cores, JAX 0.1",
        "1 x cpu, q, 2 cores, JAX 0.1, with glibc.malloc.hugetlb=1",
    ]
    assert text.count("### `compile`") == 4
    assert "| resnet50 | cold | 4,000.00 | 10% | 3.00 |" in text
    assert "|  | warm | 2,000.00 | 10% | 1.00 |" in text
    origin = "`python -m benchmarks compile` on 2026-01-02, commit abc; jax 0.1."
    assert text.count(origin) == 2
    assert text.count(f"{origin[:-1]}, GLIBC_TUNABLES glibc.malloc.hugetlb=1.") == 1
    assert text.count("](pictures/") == text.count("](pictures/gpu_a.png)") == 1
