import io

from rich.console import Console

from train.run.progress import RunProgress

LINE = {
    "step": 5,
    "split": "test",
    "loss": 0.25,
    "accuracy": 0.875,
    "images_per_second": 1234.5,
}


def test_output_that_is_not_a_terminal_gets_plain_lines():
    console = Console(file=io.StringIO(), width=40)
    with RunProgress(console, start=0, steps=10, epochs=2) as progress:
        progress.step()
        progress.trained(LINE)
        progress.evaluated({**LINE, "epoch": 1.0})
    text = console.file.getvalue()  # pyright: ignore
    assert text.splitlines() == [
        "step 5/10  loss 0.2500  accuracy 87.50 %  1,234 images/s  0:00 left",
        "epoch 1/2  test loss 0.2500  test accuracy 87.50 %",
    ]


def test_a_terminal_gets_a_bar_with_speed_and_time_left():
    console = Console(file=io.StringIO(), width=120, force_terminal=True)
    with RunProgress(console, start=0, steps=10, epochs=2) as progress:
        for _ in range(5):
            progress.step()
        progress.trained(LINE)
    text = console.file.getvalue()  # pyright: ignore
    assert "5/10" in text
    assert "loss 0.2500  accuracy 87.50 %  1,234 images/s" in text
    assert "step 5/10  loss" not in text
