import dataclasses
import json
import re
from collections import Counter

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from cnn_flax import create_model
from tests.train.run.test_topology import needs_libtpu
from train.__main__ import main
from train.config import Network, Parallelism
from train.data.stand_in import stand_in
from train.errors import UserError
from train.learn.parallel import Placement
from train.run.plan import plan_run
from train.run.program import build, train_step_shapes
from train.run.topology import open_topology


@pytest.fixture
def config(tiny):
    """The smallest run, in bfloat16."""
    network = dataclasses.replace(tiny.network, dtype="bfloat16")
    return dataclasses.replace(tiny, network=network)


def images(config):
    return stand_in(config, 300), stand_in(config, 150)


@pytest.mark.slow
@needs_libtpu
def test_a_tiny_net_is_compiled_for_four_tpus(config):
    plan = plan_run(config, "tiny", open_topology("v5e:2x2"), images(config))
    training, evaluation = plan.steps["training"], plan.steps["evaluation"]
    for step in plan.steps.values():
        assert step.fits and step.images == 100
        assert step.cost.flops > 0 and step.cost.traffic > 0
        assert step.needs == step.cost.memory < 2**30
    # A chip holds the whole state, and a quarter of the batch.
    assert training.cost.arguments > plan.program.bytes
    assert training.cost.flops > 2 * evaluation.cost.flops
    # The gradients, two bytes or four each, and BatchNorm's sums; nothing is gathered.
    (reduced,) = training.cost.collectives
    assert reduced.kind == "all-reduce"
    assert 2 < reduced.bytes / plan.program.parameters < 6
    assert evaluation.cost.collectives == plan.steps["labelling"].cost.collectives == ()
    # 3 epochs of 3 steps, and of 2 batches of evaluation.
    seconds = 9 * training.roofline.seconds + 6 * evaluation.roofline.seconds
    assert plan.seconds == pytest.approx(seconds)
    assert plan.chip_hours == pytest.approx(4 * seconds / 3600)
    json.dumps(plan.record())


def operations(config, devices):
    """How often each operation occurs in the training step, lowered."""
    program = build(config, "tiny", images(config), devices=devices)
    arguments = train_step_shapes(program)
    text = jax.jit(program.train_step).lower(*arguments).as_text()
    found = Counter(re.findall(r"stablehlo\.(\w+)", text))
    # The branch that a platform takes is the only one of a case, and returns.
    for name in ("case", "constant", "return"):
        del found[name]
    return found


@pytest.mark.slow
@needs_libtpu
def test_a_tpu_gets_the_plain_formulations_alone(config, monkeypatch):
    devices = open_topology("v5e:2x2").devices
    network = Network(
        "efficientnet_b0", {"width_multiplier": 0.25, "depth_multiplier": 0.2}
    )
    config = dataclasses.replace(config, network=network)
    for_tpus = operations(config, devices)
    monkeypatch.setattr(
        lax, "platform_dependent", lambda *args, default, cpu: default(*args)
    )
    jax.clear_caches()
    assert operations(config, devices) == for_tpus


@pytest.mark.slow
@needs_libtpu
def test_two_devices_hold_a_tower_of_alexnet_each():
    placement = Placement(open_topology("v5e:2x2").devices, model=2)
    net = create_model("alexnet_lrn")
    images = jax.ShapeDtypeStruct((8, 227, 227, 3), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0), images)
    program = jax.jit(net.apply).lower(
        placement.state_shapes(variables), placement.shapes(images, placement.sharded)
    )
    kinds = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
    found = re.findall(
        rf" ({kinds})(?:-start)?\(.*op_name=\"[^\"]*/AlexNet/([^\"]*)\"",
        program.compile().as_text(),
    )
    # Normalisation, which sees two maps of the other tower on either side; the input of
    # layer3, the convolution that reads both towers; and the dense layers. No other
    # convolution communicates, as in section 3.5 and figure 2 of the paper.
    assert set(found) == {
        ("collective-permute", "slice"),
        ("all-gather", "reduce_window_max"),
        ("all-to-all", "reshape"),
        ("all-reduce", "layer6/dot_general"),
        ("all-reduce", "head/dot_general"),
    }


def test_pmap_needs_the_chips(config):
    parallelism = Parallelism(parallel="pmap")
    topology = dataclasses.replace(open_topology("gpu:h200"), is_estimate=False)
    config = dataclasses.replace(config, parallelism=parallelism)
    with pytest.raises(UserError, match="--parallel jit"):
        plan_run(config, "tiny", topology, images(config))


@pytest.mark.slow
def test_the_command_prints_a_table_and_appends_json(tmp_path, capsys):
    out = tmp_path / "plans.jsonl"
    words = ["plan", "digits_resnet", "--topology", "gpu:h200", "--json", str(out)]
    words += ["--model-fields", "stage_sizes=(1,)", "width=4", "small_inputs=True"]
    assert main([*words, "--steps", "training", "--batch-size", "700"]) == 0
    printed = capsys.readouterr().out
    for text in ("temporaries", "bound by", "chip-hours", "largest batch", "estimates"):
        assert text in printed
    (record,) = map(json.loads, out.read_text("utf-8").splitlines())
    assert record["chips"] == 1 and record["is_estimate"]
    # There are no more images than that.
    assert record["largest_batch"]["fits"] == 1438
    assert list(record["steps"]) == ["training"]
    assert record["versions"]["jax"] == jax.__version__
