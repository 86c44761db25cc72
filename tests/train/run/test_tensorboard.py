import dataclasses

import pytest

from train.data.tfrecord import TFRecords
from train.errors import UserError
from train.run.loop import fit
from train.run.metrics import read_metrics
from train.run.tensorboard import TensorBoardLog


def events(run):
    """The events of a run in order, over all restarts."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for file in sorted(
        (run / "tensorboard").iterdir(), key=lambda f: f.stat().st_mtime
    ):
        records = TFRecords([str(file)], [10**6])
        try:
            for i in range(10**6):
                found.append(event_pb2.Event.FromString(records[i]))
        except EOFError:
            pass
    return found


def test_every_figure_is_a_curve_of_its_split(tmp_path):
    with TensorBoardLog(tmp_path, 0) as log:
        log.write({"step": 5, "split": "train", "loss": 0.5, "epoch": 1})
        log.write({"step": 5, "split": "val", "loss": 0.75})
    assert [line["split"] for line in read_metrics(tmp_path)] == ["train", "val"]
    scalars = {
        (value.tag, event.step): value.simple_value
        for event in events(tmp_path)
        for value in event.summary.value
    }
    assert scalars == {
        ("loss/train", 5): 0.5,
        ("epoch/train", 5): 1.0,
        ("loss/val", 5): 0.75,
    }


def test_a_resumed_run_purges_events_that_will_be_measured_again(tmp_path):
    with TensorBoardLog(tmp_path, 0) as log:
        log.write({"step": 5, "split": "train", "loss": 0.5})
    with TensorBoardLog(tmp_path, 3) as log:
        log.write({"step": 5, "split": "train", "loss": 0.25})
    starts = [e.step for e in events(tmp_path) if e.session_log.status == 1]
    assert starts[-1] == 4


@pytest.mark.slow
def test_the_flag_writes_events(tmp_path, tiny, quiet, programs):
    fit(dataclasses.replace(tiny, epochs=1, tensorboard=True), tmp_path, console=quiet)
    tags = {value.tag for event in events(tmp_path) for value in event.summary.value}
    assert {"loss/train", "accuracy/test", "learning_rate/train"} <= tags


def test_a_missing_extra_is_reported_before_anything_is_done(
    tmp_path, tiny, quiet, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install .*\[tensorboard\]'"):
        config = dataclasses.replace(tiny, tensorboard=True)
        fit(config, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()
