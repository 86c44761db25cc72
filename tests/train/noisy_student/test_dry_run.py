import io

import pytest
from rich.console import Console

from train import recipes
from train.noisy_student.dry_run import dry_run


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        "noisy_student_digits",
        pytest.param("noisy_student_imagenet", marks=pytest.mark.long),
    ],
)
def test_each_model_is_built_and_nothing_is_truncated_or_written(
    recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if recipe == "noisy_student_imagenet":
        # Its steps take minutes to trace; those of the other recipe are.
        row = lambda program: [program.record["model"]["name"], *["9" * 20] * 4]  # noqa: E731
        monkeypatch.setattr("train.noisy_student.dry_run._cost", row)
    student = recipes.load(recipe).noisy_student
    narrow = Console(file=io.StringIO(), width=50)
    dry_run(student, recipe, narrow)
    printed = narrow.file.getvalue()
    assert "…" not in printed
    assert "Dry run: nothing was trained or written." in " ".join(printed.split())
    rows = [
        line.split("│") for line in printed.splitlines() if line.startswith("│ round")
    ]
    assert len(rows) == 1 + len(student.students)
    assert not any(tmp_path.iterdir())
