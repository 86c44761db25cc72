import dataclasses
import io
import json
import re
import shutil
import signal
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import Mock

import chex
import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from tests.support.runs import assert_same_end, interrupt_at, last_checkpoint
from train.config import Augment, Input, Network, Optimization, Parallelism, Selection
from train.config_file import read_record
from train.data import SourceError, open_source, train_batches
from train.errors import Interrupted, NotFiniteError, UserError
from train.learn.optimizer import make_schedule
from train.learn.parallel import compile_step
from train.run import charts, loop, training_batches
from train.run.checkpoint import Checkpoints
from train.run.inference import evaluate_run
from train.run.loop import fit
from train.run.metrics import read_metrics
from train.run.program import build, compile_train_step
from train.run.reporting import report_run
from train.run.run_folder import read_result

STEPS = 3 * 14  # Of `tiny`.

pytestmark = pytest.mark.usefixtures("programs")


@pytest.fixture(scope="module")
def uninterrupted(programs, tiny, tmp_path_factory, undrawn):
    """The folder of an uninterrupted run; tests must not change it."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "report_run", report_run)
        fit(tiny, run, recipe="a_recipe", console=Console(file=io.StringIO()))
    return run


def test_a_start_names_the_classes_and_refuses_to_write_among_the_images(
    tiny, quiet, tmp_path, monkeypatch
):
    digits = open_source("digits", labels_per_class=3)
    for i in range(len(digits)):
        file = tmp_path / "set" / f"class {digits.labels[i]}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.read(i).squeeze()).save(file)
    spec = f"folder:{tmp_path / 'set'}"
    inputs = dataclasses.replace(tiny.input, data=spec, batch_size=10)
    config = dataclasses.replace(tiny, input=inputs, epochs=1)
    inside = tmp_path / "set" / "run"
    with pytest.raises(UserError, match="set/run is inside .*: choose another --out"):
        fit(config, inside, console=quiet)
    assert not inside.exists()
    monkeypatch.setattr(loop, "compile_steps", stop := Mock(side_effect=KeyError))
    with pytest.raises(KeyError):
        fit(config, tmp_path / "run", console=quiet)
    stop.assert_called_once()
    line = "10 classes: class 0, class 1, class 2, class 3, class 4, ...\n"
    assert line in quiet.file.getvalue()


def test_a_run_writes_its_record_metrics_result_and_report(uninterrupted, tiny):
    result = read_result(uninterrupted)
    assert result is not None
    assert (result["steps"], result["test_images"]) == (STEPS, 359)

    record = read_record(uninterrupted)
    assert record is not None
    assert record["format"] == 1
    assert record["recipe"] == "a_recipe"
    assert record["model"]["name"] == "resnet18"
    assert record["model"]["fields"]["num_classes"] == 10
    assert record["input"] == {
        "image_size": 8,
        "channels": 1,
        "mean": [0.3],
        "std": [0.4],
    }
    assert record["class_names"] == list("0123456789")

    lines = read_metrics(uninterrupted)
    train = [line for line in lines if line["split"] == "train"]
    test = [line for line in lines if line["split"] == "test"]
    assert [line["step"] for line in train] == [*range(5, STEPS, 5), STEPS]
    assert [line["step"] for line in test] == [14, 28, 42]
    assert [line["epoch"] for line in test] == [1, 2, 3]
    assert test[-1]["accuracy"] == result["accuracy"]
    wanted = {"loss", "accuracy", "learning_rate", "images_per_second"}
    assert all(wanted <= set(line) for line in train)
    rates = [line["learning_rate"] for line in train]
    assert max(rates) == pytest.approx(0.1, rel=1e-2) and rates[-1] < 1e-3

    page = (uninterrupted / "report.html").read_text("utf-8")
    assert f"{100 * result['accuracy']:.2f} % of 359 test images" in page
    assert "could not be drawn" not in page
    assert last_checkpoint(uninterrupted, tiny)[0] == STEPS


def times(run):
    return {path: path.stat().st_mtime_ns for path in run.rglob("*")}


def test_a_run_that_has_ended_is_not_trained_again(uninterrupted, tiny, quiet):
    before = times(uninterrupted)
    assert fit(tiny, uninterrupted, recipe="a_recipe", console=quiet) == read_result(
        uninterrupted
    )
    assert f"{uninterrupted} has ended already." in quiet.file.getvalue()
    assert times(uninterrupted) == before


def test_a_different_run_is_refused_and_nothing_is_changed(uninterrupted, tiny, quiet):
    before = times(uninterrupted)
    other = dataclasses.replace(tiny, epochs=4)
    with pytest.raises(UserError, match="run of 3 epochs. To train it for 4, add --ex"):
        fit(other, uninterrupted, recipe="a_recipe", console=quiet)
    other = dataclasses.replace(tiny, epochs=4, seed=1)
    for extend in (False, True):
        with pytest.raises(UserError, match="--seed is 0 there and 1 here"):
            fit(other, uninterrupted, recipe="a_recipe", console=quiet, extend=extend)
    fewer = dataclasses.replace(tiny, epochs=2)
    with pytest.raises(UserError, match="--epochs is 3 there and 2 here"):
        fit(fewer, uninterrupted, recipe="a_recipe", console=quiet, extend=True)
    assert times(uninterrupted) == before


@pytest.mark.slow
def test_an_extended_run_ends_like_one_that_began_with_more_epochs(
    tmp_path, tiny, quiet, monkeypatch
):
    # The rates of this schedule do not depend on the number of epochs.
    options = dataclasses.replace(tiny.optimization, schedule="step", step_epochs=1.5)
    config = dataclasses.replace(tiny, optimization=options, log_every=7)
    one, three = (dataclasses.replace(config, epochs=n) for n in (1, 3))
    begun, run = tmp_path / "three", tmp_path / "one"
    fit(three, begun, console=quiet)
    first = fit(one, run, console=quiet)
    interrupt_at(monkeypatch, 16)
    with pytest.raises(Interrupted):
        fit(three, run, console=quiet, extend=True)
    assert "from 1 to 3 epochs: --schedule step now spans 3" in quiet.file.getvalue()
    fit(three, run, console=quiet)  # Resumed without the flag.
    assert_same_end(run, begun, three)
    kept = json.loads((run / "result-1-epochs.json").read_text())
    assert kept == first


@pytest.mark.slow
def test_the_cosine_of_an_extended_run_spans_all_epochs(tmp_path, tiny, quiet):
    one, two = (dataclasses.replace(tiny, epochs=n) for n in (1, 2))
    fit(one, tmp_path / "run", console=quiet)
    result = fit(two, tmp_path / "run", console=quiet, extend=True)
    assert (result["epochs"], result["steps"]) == (2, 28)
    rates = [
        line["learning_rate"]
        for line in read_metrics(tmp_path / "run")
        if line["split"] == "train"
    ]
    schedule = make_schedule(two.optimization, 14, 28)
    np.testing.assert_allclose(
        rates[3:], [schedule(step - 1) for step in (15, 20, 25, 28)], rtol=1e-6
    )


@pytest.mark.slow
def test_a_chart_that_cannot_be_drawn_is_a_line_and_the_run_has_ended(
    tmp_path, tiny, quiet, monkeypatch
):
    def fails(*arguments, **options):
        raise RuntimeError("no such font")

    monkeypatch.setattr(loop, "report_run", report_run)
    monkeypatch.setattr(charts, "reliability_chart", fails)
    config = dataclasses.replace(tiny, epochs=1, epoch_steps=1)
    result = fit(config, tmp_path, console=quiet)
    assert read_result(tmp_path) == result
    line = "Calibration could not be drawn: RuntimeError: no such font"
    assert line in quiet.file.getvalue()
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "This part could not be drawn: RuntimeError: no such font" in page
    assert "Worst images" in page and "Learning curves" in page


@pytest.mark.parametrize(
    ("every", "logged"), [(5, [5, 10, 15]), (7, [7, 14]), (50, [8, 16]), (12, [8, 12])]
)
def test_each_epoch_has_a_line_of_training(every, logged):
    # Two epochs of 8 steps; `is_last` adds the last one.
    assert [s for s in range(1, 17) if loop._is_logged(s, every, 8)] == logged


# Between two log lines, at the end of an epoch, after the last step; then twice.
@pytest.mark.slow
@pytest.mark.parametrize("steps", [(3,), (14,), (STEPS,), (10, 11)])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    uninterrupted, tmp_path, tiny, quiet, monkeypatch, steps
):
    interrupt_at(monkeypatch, *steps)
    for step in steps:
        with pytest.raises(Interrupted, match=f"after step {step}") as error:
            fit(tiny, tmp_path, console=quiet)
        assert error.value.signal == signal.SIGINT
        assert last_checkpoint(tmp_path, tiny)[0] == step
    fit(tiny, tmp_path, console=quiet)
    assert f"Resuming from step {steps[-1]} of {STEPS}." in quiet.file.getvalue()
    assert_same_end(tmp_path, uninterrupted, tiny)


def test_sigterm_saves_too(tmp_path, tiny, quiet, monkeypatch):
    interrupt_at(monkeypatch, 2, number=signal.SIGTERM)
    with pytest.raises(Interrupted) as error:
        fit(tiny, tmp_path, console=quiet)
    assert error.value.signal == signal.SIGTERM
    assert last_checkpoint(tmp_path, tiny)[0] == 2


@pytest.mark.slow
def test_an_interrupted_run_with_every_option_of_a_step_ends_the_same(
    tmp_path, tiny, quiet, monkeypatch
):
    options = dataclasses.replace(
        tiny.optimization,
        optimizer="lamb",
        learning_rate=0.01,
        schedule="step",
        step_epochs=1.0,
        gradient_accumulation=2,
        clip_norm=1.0,
        ema_decay=0.9,
    )
    config = dataclasses.replace(tiny, epochs=2, optimization=options)
    result = fit(config, tmp_path / "uninterrupted", console=quiet)
    interrupt_at(monkeypatch, 17)
    with pytest.raises(Interrupted):
        fit(config, tmp_path / "run", console=quiet)
    fit(config, tmp_path / "run", console=quiet)
    assert_same_end(tmp_path / "run", tmp_path / "uninterrupted", config)

    last = read_metrics(tmp_path / "run")[-1]
    assert last["split"] == "test"
    for name in ("accuracy", "loss", "top5_accuracy"):
        assert last[f"ema_{name}"] == result[f"ema_{name}"]
    assert result["ema_loss"] != result["loss"]
    assert "of the EMA" in quiet.file.getvalue()
    evaluation, _ = evaluate_run(tmp_path / "run", ema=True)
    assert evaluation.figures()["accuracy"] == result["ema_accuracy"]
    assert evaluation.figures()["loss"] == pytest.approx(result["ema_loss"], rel=1e-5)


@pytest.mark.slow
def test_the_step_donates_the_state(tiny):
    options = dataclasses.replace(tiny.optimization, ema_decay=0.9, freeze_bn=True)
    program = build(dataclasses.replace(tiny, optimization=options))
    state = program.init()
    batch = next(train_batches(program.train, **program.train_batch._asdict(), seed=0))
    batch = jax.device_put(batch, program.placement.sharded)
    after, _ = compile_train_step(program)(state, batch, program.key)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.ema))
    # --freeze-bn reached the step: the statistics are the initial ones.
    chex.assert_trees_all_equal(after.batch_stats, program.init().batch_stats)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(
    tmp_path, tiny, quiet
):
    # The rate rises until the weights overflow, in the second epoch.
    diverging = Optimization(learning_rate=1e30, warmup_epochs=3)
    config = dataclasses.replace(tiny, optimization=diverging, checkpoint_every=1)
    with pytest.raises(NotFiniteError, match="of step [0-9]+ is (nan|inf)") as error:
        fit(config, tmp_path, console=quiet)
    step, state = last_checkpoint(tmp_path, config)
    assert step == error.value.step - 1
    assert f"keeps the checkpoint of step {step}." in error.value.__notes__[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.variables))
    assert all(line["step"] < error.value.step for line in read_metrics(tmp_path))
    assert read_result(tmp_path) is None


class Observed(NamedTuple):
    """What a run did: saved steps, compiled steps, handlers before and after it."""

    saved: list[int]
    compiled: list[Any]
    handlers: list[list[Any]]


@pytest.fixture(scope="module")
def observed(programs, tiny, tmp_path_factory, undrawn):
    """A run with a checkpoint every six steps."""
    seen = Observed([], [], [])

    def save(self, step, state, meta):
        seen.saved.append(step)
        original(self, step, state, meta)

    def counted(*arguments, **options):
        seen.compiled.append(arguments)
        return compile_step(*arguments, **options)

    def note_handlers():
        signals = (signal.SIGINT, signal.SIGTERM)
        seen.handlers.append([signal.getsignal(n) for n in signals])

    original = Checkpoints.save
    config = dataclasses.replace(tiny, checkpoint_every=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        patch.setattr("train.run.program.compile_step", counted)
        note_handlers()
        run = tmp_path_factory.mktemp("observed") / "run"
        fit(config, run, console=Console(file=io.StringIO()))
        note_handlers()
    return seen


@pytest.mark.slow
def test_signals_have_their_usual_effect_after_a_run(observed):
    before, after = observed.handlers
    assert after == before


def test_checkpoints_are_written_between_epochs_too(observed):
    assert observed.saved == [6, 12, 14, 18, 24, 28, 30, 36, 42]


def test_nothing_is_compiled_after_the_first_step(observed):
    assert len(observed.compiled) == 2  # Compiled steps refuse other shapes.


@pytest.mark.slow
def test_a_changed_version_is_reported(tmp_path, tiny, quiet, monkeypatch):
    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        fit(tiny, tmp_path, console=quiet)
    path = tmp_path / "config.json"
    record = json.loads(path.read_text())
    record["versions"]["jax"] = "0.0.1"
    path.write_text(json.dumps(record))
    fit(tiny, tmp_path, console=quiet)
    assert "jax was 0.0.1 when the run began, and is" in quiet.file.getvalue()


@pytest.mark.slow
def test_a_run_may_be_resumed_under_pmap_and_reports_the_change(
    tmp_path, tiny, quiet, monkeypatch
):
    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        fit(tiny, tmp_path, console=quiet)
    pmap = dataclasses.replace(
        tiny, epochs=3, parallelism=Parallelism("pmap", devices=1)
    )
    fit(pmap, tmp_path, console=quiet)
    shown = quiet.file.getvalue()
    assert "parallel was jit when the run began, and is pmap now" in shown
    assert "Resuming from step 3" in shown
    record = read_record(tmp_path)
    assert record is not None
    assert "bn_axis_name" not in record["model"]["fields"]


@pytest.fixture
def photos(tmp_path):
    """A folder of two classes with ten images each, for training and for test."""
    folder = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, low in (("dark", 0), ("bright", 128)):
            (folder / split / name).mkdir(parents=True)
            for i in range(10):
                pixels = rng.integers(low, low + 128, (9, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{i}.png")
    return folder


def on(photos, tiny):
    return dataclasses.replace(
        tiny,
        input=Input(data=f"folder:{photos}", image_size=8, batch_size=10),
        network=Network("resnet18", {"stage_sizes": (1,), "width": 4}),
    )


@pytest.mark.slow
def test_an_image_folder_of_fewer_than_five_classes_trains(
    tmp_path, tiny, quiet, photos
):
    result = fit(on(photos, tiny), tmp_path / "run", console=quiet)
    record = read_record(tmp_path / "run")
    assert record is not None
    assert record["class_names"] == ["bright", "dark"]
    assert result["test_images"] == 20


def test_a_run_whose_classes_have_changed_is_refused(
    tmp_path, tiny, quiet, photos, monkeypatch
):
    interrupt_at(monkeypatch, 1)
    with pytest.raises(Interrupted):
        fit(on(photos, tiny), tmp_path / "run", console=quiet)
    for split in ("train", "test"):
        (photos / split / "dark").rename(photos / split / "dim")
    with pytest.raises(UserError, match="class 1 is dim there and dark in the run"):
        fit(on(photos, tiny), tmp_path / "run", console=quiet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": Network("resnet19")}, "no model 'resnet19'.*Nearest: resnet18"),
        ({"network": Network("resnet18", {"widht": 4})}, "'widht'.*Nearest: width"),
        (
            {"network": Network("resnet18", {"width": "wide"})},
            "width must be a whole number, got 'wide'",
        ),
        (
            {"network": Network("alexnet")},
            "alexnet cannot be built for images of 8 x 8 x 1",
        ),
        ({"network": Network("resnet18", dtype="float64")}, "JAX_ENABLE_X64=1"),
        (
            {"parallelism": Parallelism(devices=9)},
            "9 devices are asked for, and there are 1",
        ),
        (
            {"input": Input(image_size=8, mean=(0.1, 0.2, 0.3), std=(1.0,))},
            "--mean must be one value or 1, one per channel of the images; got 3",
        ),
    ],
)
def test_a_run_that_cannot_start_leaves_no_folder(
    tmp_path, tiny, quiet, changes, message
):
    with pytest.raises(UserError, match=message):
        fit(dataclasses.replace(tiny, **changes), tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


def test_a_label_out_of_range_is_named_before_anything_is_trained(
    tmp_path, tiny, quiet
):
    for part, count in (("train", 200), ("t10k", 20)):
        images = np.zeros((count, 8, 8), np.uint8)
        labels = np.full(count, 11 if part == "train" else 1, np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, array.ndim])
            head += b"".join(size.to_bytes(4, "big") for size in array.shape)
            (tmp_path / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    config = dataclasses.replace(
        tiny, input=dataclasses.replace(tiny.input, data=f"idx:{tmp_path}")
    )
    message = re.escape("label 11 at image 0")
    with pytest.raises(SourceError, match=f"{message}.*classes are 0 to 9"):
        fit(config, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


def test_too_little_disk_space_is_an_error_before_anything_is_computed(
    tmp_path, tiny, quiet, monkeypatch
):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(loop, "compile_steps", None)
    with pytest.raises(UserError, match="run has too little space: 0.0 MB are free"):
        fit(tiny, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


def test_a_batch_larger_than_the_set_has_all_of_its_images(tiny):
    few = dataclasses.replace(tiny, selection=Selection(count=30))
    program = build(few)
    assert program.train_batch.batch_size == program.config.input.batch_size == 30
    assert (program.steps_per_epoch, program.steps) == (1, 3)
    assert program.warnings[0] == (
        "--batch-size 100 is more than the 30 training images: a batch has 30, and an "
        "epoch one step."
    )
    # The same command resumes the run.
    assert program.record["config"]["input"]["batch_size"] == 100
    # With a number of steps, the images are repeated to fill the batch.
    assert build(dataclasses.replace(few, epoch_steps=2)).train_batch.batch_size == 100


def test_an_image_size_that_leaves_little_of_photographs_is_said(tiny, photos):
    def warnings(size):
        inputs = Input(data=f"folder:{photos}", image_size=size, batch_size=10)
        return build(dataclasses.replace(tiny, input=inputs)).warnings

    said = "--image-size 3 leaves little of the images: resnet18 is usually trained at"
    assert warnings(3)[0].startswith(said)
    assert warnings(8) == ()


@pytest.mark.slow
def test_a_run_is_evaluated_on_the_requested_split(tmp_path, tiny, quiet):
    select = Selection(eval_split="val", val_share=0.25, labels_per_class=20)
    config = dataclasses.replace(tiny, selection=select, epochs=1)
    result = fit(config, tmp_path, console=quiet)
    # A quarter of the 1,438 training digits; 200 of the others are learned from.
    assert (result["split"], result["test_images"], result["steps"]) == ("val", 359, 2)
    assert {line["split"] for line in read_metrics(tmp_path)} == {"train", "val"}


def test_a_missing_split_is_an_error(tmp_path, tiny, quiet):
    config = dataclasses.replace(tiny, selection=Selection(eval_split="val"))
    with pytest.raises(SourceError, match="no val split.*val_share holds one out"):
        fit(config, tmp_path / "run", console=quiet)


def test_an_unreadable_image_is_left_out_and_counted(tmp_path, tiny, quiet, photos):
    (photos / "train" / "dark" / "3.png").write_bytes(b"no image")
    config = on(photos, tiny)
    with pytest.raises(UserError, match="1 of 20 images cannot be read, more than"):
        fit(config, tmp_path / "run", console=quiet)
    # The share may be raised to resume the same run.
    options = dataclasses.replace(config.input, max_bad_share=0.1)
    config = dataclasses.replace(config, input=options)
    result = fit(config, tmp_path / "run", console=quiet)
    assert result["unreadable_images"] == 1
    assert quiet.file.getvalue().count(f"left out: {photos}/train/dark/3.png") == 2


def record_options(calls, original, source, **options):
    calls.append(options)
    return original(source, **options)


@pytest.mark.slow
def test_windows_are_cropped_from_images_that_were_loaded_larger(
    tmp_path, tiny, quiet, photos, monkeypatch
):
    calls = []
    for module, name in ((training_batches, "train_batches"), (loop, "eval_batches")):
        recorder = partial(record_options, calls, getattr(module, name))
        monkeypatch.setattr(module, name, recorder)
    config = on(photos, tiny)
    config = dataclasses.replace(
        config,
        input=dataclasses.replace(config.input, load_size=12, crop_pct=0.8),
        augment=Augment(crop_scale=0.25),
        epochs=1,
    )
    fit(config, tmp_path / "run", console=quiet)
    sizes = [(options["image_size"], options["crop_pct"]) for options in calls]
    assert sizes == [(12, 1.0), (8, 0.8)]


@pytest.mark.slow
def test_images_are_decoded_with_the_flags_options(
    tmp_path, tiny, quiet, photos, monkeypatch
):
    calls = []
    change = {"crop_pct": 0.5, "interpolation": "nearest", "threads": 3}
    config = dataclasses.replace(on(photos, tiny), epochs=1)
    config = dataclasses.replace(
        config, input=dataclasses.replace(config.input, **change)
    )
    for module, name in ((training_batches, "train_batches"), (loop, "eval_batches")):
        recorder = partial(record_options, calls, getattr(module, name))
        monkeypatch.setattr(module, name, recorder)
    fit(config, tmp_path / "run", console=quiet)
    assert len(calls) == 2
    assert all(change.items() <= options.items() for options in calls)


def test_a_run_with_a_damaged_checkpoint_says_so_and_ends_bit_equal(
    uninterrupted, tiny, tmp_path, quiet
):
    run = shutil.copytree(uninterrupted, tmp_path / "run")
    (run / "result.json").unlink()
    (array, *_) = (run / "checkpoints" / str(STEPS) / "model").glob("d/*")
    array.write_bytes(array.read_bytes()[:100])
    fit(tiny, run, recipe="a_recipe", console=quiet)
    said = quiet.file.getvalue()
    assert f"The checkpoint of step {STEPS} cannot be read, and is in" in said
    assert f"Resuming from step {STEPS * 2 // 3} of {STEPS}." in said
    assert_same_end(uninterrupted, run, tiny)
    assert (run / "damaged-checkpoints" / str(STEPS)).is_dir()


def test_a_run_whose_checkpoints_are_gone_says_that_it_starts_again(
    uninterrupted, tiny, tmp_path, quiet, monkeypatch
):
    run = shutil.copytree(uninterrupted, tmp_path / "run")
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints")
    monkeypatch.setattr(loop, "training_batches", Mock(side_effect=KeyError))
    with pytest.raises(KeyError):
        fit(tiny, run, recipe="a_recipe", console=quiet)
    assert "has no checkpoint: it starts again from step 0." in quiet.file.getvalue()
