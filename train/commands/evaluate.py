"""`python -m train evaluate`: evaluates a run, or a model with weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from train.api.evaluation import EvaluateResult, evaluate
from train.compilation_cache import use_compilation_cache
from train.errors import UserError

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Evaluates a run's last checkpoint, or a model with weights from elsewhere."""

    what: Positional[Annotated[str, arg(metavar="RUN|MODEL")]]
    """Folder of a run, or a model, one of cnn_flax.list_models()."""
    data: str | None = None
    """Data source of the images; by default the run's."""
    split: Literal["train", "val", "test"] | None = None
    """Split of the data; by default that which the run evaluates on, or test."""
    weights: str | None = None
    """The model's weights: a file, a folder, or an id on the Hugging Face Hub; by
    default the first published ones."""
    batch_size: int | None = None
    """Images per step; by default the run's, or 64. It does not change the figures."""
    ema: bool = False
    """Evaluate the moving average of the weights of a run with --ema-decay."""
    old_head: bool = False
    """Evaluate the head of the old task, of a run with --transfer lwf; --data gives
    images of that task."""
    calibrated: bool = False
    """Divide the logits by the temperature that `calibrate` fitted."""
    tta: Literal["none", "flip", "crops5", "policy"] = "none"
    """Test-time augmentation: the mean probabilities of the image and its mirror image
    (flip), of five windows of a larger one (crops5), or of eight draws of the run's
    augmentation (policy)."""
    report: Path | None = None
    """Write a report of the evaluation, one HTML page, to this file. A run that is
    evaluated as it was trained has it in its folder anyway, as report.html."""
    max_pixels: int = 0
    """Allow images of up to this many pixels, if that is more than Pillow's limit."""
    max_unpacked_bytes: int = 0
    """Allow the arrays of a compressed npz or idx file to have up to this many bytes,
    if that is more than 64 MiB and 32 times its size."""

    def __call__(self) -> None:
        """Runs the command."""
        if self.report and not self.report.parent.is_dir():
            raise UserError(f"--report {self.report}: there is no folder for it.")
        use_compilation_cache()
        result = evaluate(
            self.what,
            self.data,
            self.split,
            weights=self.weights,
            batch_size=self.batch_size,
            ema=self.ema,
            old_head=self.old_head,
            calibrated=self.calibrated,
            tta=self.tta,
            max_pixels=self.max_pixels,
            max_unpacked_bytes=self.max_unpacked_bytes,
        )
        console = Console()
        console.print(result.table())
        self._report(result, console)

    def _report(self, result: EvaluateResult, console: Console) -> None:
        from train.config_file import load_record
        from train.run.report import Report
        from train.run.reporting import report_run, write_report

        run, found = Path(self.what), (result.evaluation, result.source)
        is_as_trained = self.tta == "none" and not (
            self.data or self.split or self.ema or self.old_head or self.calibrated
        )
        if run.exists() and (self.report or is_as_trained):
            note = "The moving average of its weights was evaluated." * self.ema
            note += "The head of its old task was evaluated." * self.old_head
            note += "Its logits were divided by its temperature." * self.calibrated
            note += self._tta_note()
            options: Any = {"path": self.report, "split": self.split, "note": note}
            report_run(run, load_record(run), *found, console, **options)
        elif self.report:
            note = f"Weights: {self.weights or 'the first published ones'}."
            note += self._tta_note()
            report = Report(*found, self.split or "test", self.what, note=note)
            write_report(report, self.report, console)

    def _tta_note(self) -> str:
        is_plain = self.tta == "none"
        return "" if is_plain else f" Test-time augmentation: {self.tta}."
