import dataclasses

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.runs import assert_resumes_to_the_same_end, last_checkpoint
from train.config import Network, Selection, Transfer
from train.data import eval_batches
from train.run.inference import evaluate_run
from train.run.loop import fit
from train.run.precise_bn import is_wanted, pooled
from train.run.program import build
from train.run.record import build_model

pytestmark = pytest.mark.usefixtures("programs")


def precise(tiny, wish="auto", **changes):
    options = dataclasses.replace(tiny.optimization, precise_bn=wish)
    return dataclasses.replace(tiny, optimization=options, **changes)


def test_statistics_pooled_over_batches_are_those_of_all_images():
    images = np.random.default_rng(0).normal(3, [1, 2, 5], (6, 20, 3))
    of_batches = [{"bn": {"mean": x.mean(0), "var": x.var(0)}} for x in images]
    total = of_batches[0]
    for count, of_batch in enumerate(of_batches[1:], 1):
        total = pooled(total, of_batch, count)
    rows = images.reshape(-1, 3)
    expected = {"bn": {"mean": rows.mean(0), "var": rows.var(0)}}
    chex.assert_trees_all_close(total, expected, rtol=1e-5)


def test_a_run_of_few_steps_has_them_unless_its_statistics_are_frozen(tiny):
    wanted = precise(tiny)
    assert is_wanted(build(wanted))
    assert not is_wanted(build(precise(tiny, epoch_steps=34)))  # 102 steps.
    assert is_wanted(build(precise(tiny, "always", epoch_steps=34)))
    assert not is_wanted(build(tiny))
    frozen = dataclasses.replace(wanted.optimization, freeze_bn=True)
    assert not is_wanted(build(dataclasses.replace(wanted, optimization=frozen)))
    started = dataclasses.replace(tiny.network, init="weights.safetensors")
    transfer = Transfer(transfer="features")
    on_features = dataclasses.replace(wanted, network=started, transfer=transfer)
    assert not is_wanted(build(on_features))


@pytest.mark.slow
def test_a_run_of_one_batch_ends_with_the_statistics_of_its_images(
    tiny, tmp_path, quiet
):
    config = precise(
        tiny,
        selection=Selection(count=100),
        epochs=2,
        network=Network(
            "resnet18", {"stage_sizes": (1,), "width": 4, "small_inputs": True}
        ),
    )
    result = fit(config, tmp_path, console=quiet)
    _, state = last_checkpoint(tmp_path, config)
    program = build(config)
    batch = next(eval_batches(program.train, **program.train_batch._asdict()))
    pixels = jnp.asarray(batch["image"], jnp.float32) / 255
    images = (pixels - 0.3) / 0.4
    model = build_model(program.record)
    # The first layer's input is linear in the images; conv1 has no bias.
    _, seen = model.apply(
        state.variables, images, capture_intermediates=True, mutable=["intermediates"]
    )
    found = seen["intermediates"]["conv1"]["conv"]["__call__"][0]
    axes = (0, 1, 2)
    statistics = state.batch_stats["conv1"]["bn"]
    np.testing.assert_allclose(statistics["mean"], found.mean(axes), atol=1e-5)
    np.testing.assert_allclose(statistics["var"], found.var(axes), rtol=1e-4)
    evaluation, _ = evaluate_run(tmp_path)
    assert evaluation.figures()["loss"] == pytest.approx(result["loss"], rel=1e-6)


@pytest.mark.slow
def test_a_run_with_them_that_was_stopped_ends_bit_equal(
    tiny, tmp_path, quiet, monkeypatch
):
    options = dataclasses.replace(tiny.optimization, precise_bn="auto", ema_decay=0.9)
    config = dataclasses.replace(tiny, optimization=options)
    assert_resumes_to_the_same_end(config, tmp_path, 20, monkeypatch, quiet)
    assert "as 42 steps are few" in quiet.file.getvalue()
