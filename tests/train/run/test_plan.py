import dataclasses
import json
import re
from collections import Counter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from cnn_flax import create_model
from tests.train.run.test_topology import needs_libtpu
from train.__main__ import main
from train.commands.plan import plan_table
from train.config import Network, Parallelism
from train.data.stand_in import stand_in
from train.errors import UserError
from train.learn.parallel import Placement
from train.run.compiled_cost import Roofline
from train.run.plan import RunPlan, StepPlan, plan_run, plan_step
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


def a_plan(program, **steps):
    """A plan of steps of so many seconds, or that do not fit for None."""
    plans = {
        name: StepPlan(
            name,
            100,
            None,
            Roofline(seconds, 0, 0) if seconds else None,
            seconds is not None,
            0,
            0,
        )
        for name, seconds in steps.items()
    }
    return RunPlan(open_topology("gpu:h200"), program, plans)


def test_a_run_has_a_time_only_if_its_steps_were_compiled_and_fit(config):
    program = build(config, "tiny", images(config), devices=jax.devices()[:1])
    # 3 epochs of 3 steps, and of 2 batches of evaluation.
    assert a_plan(program, training=1.0, evaluation=0.5).seconds == 9 + 3
    assert a_plan(program, training=1.0, labelling=None).seconds == 9
    for steps, verdict in (
        ({"training": None, "evaluation": 0.5}, ["does not fit"]),
        ({"training": 1.0, "evaluation": None}, ["does not fit"]),
        ({"evaluation": 0.5}, []),
    ):
        plan = a_plan(program, **steps)
        assert plan.seconds is plan.chip_hours is None
        table = plan_table(plan.record())
        names, *columns = (list(column.cells) for column in table.columns)
        assert [
            cell
            for name, cell in zip(names, columns[0], strict=False)  # Ragged at the end.
            if name == "its time"
        ] == verdict


def test_a_step_that_needs_more_than_the_chip_has_no_time(config, monkeypatch):
    compiled = SimpleNamespace(
        memory_analysis=lambda: SimpleNamespace(
            argument_size_in_bytes=2000,
            output_size_in_bytes=500,
            alias_size_in_bytes=400,
            temp_size_in_bytes=3000,
            generated_code_size_in_bytes=10,
        ),
        cost_analysis=lambda: {"flops": 1e9, "bytes accessed": 1e6},
        as_text=lambda: "",
    )
    monkeypatch.setattr("train.run.plan.compile_eval_step", lambda program: compiled)
    program = build(config, "tiny", images(config), devices=jax.devices()[:1])
    topology = open_topology("gpu:h200")

    def step(memory):
        chip = dataclasses.replace(topology.chip, memory=memory)
        on = dataclasses.replace(topology, chip=chip)
        plan = plan_step(program, "evaluation", on)
        record = RunPlan(on, program, {"evaluation": plan}).record()
        names, values = (list(column.cells) for column in plan_table(record).columns)
        # The roof that is called memory too comes later.
        return plan, dict(zip(names[::-1], values[::-1], strict=True))

    fitting, cells = step(5110)
    assert fitting.fits and fitting.roofline and "does not" not in cells["memory"]
    exceeding, cells = step(5109)
    assert exceeding.needs == 5110 and not exceeding.fits and not exceeding.roofline
    assert cells["memory"] == "0.000 GB, 100.02 %: does not fit"
    assert "step" not in cells


def test_a_mesh_is_planned_for_as_many_chips(config):
    config = dataclasses.replace(config, parallelism=Parallelism(mesh="data=2,model=2"))
    with pytest.raises(UserError, match="data=2,model=2 has 4 devices, .* there are 1"):
        plan_run(config, "tiny", open_topology("gpu:h200"), images(config))


def test_json_that_cannot_be_written_ends_the_command_first(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("train.run.plan.plan_run", lambda *_: pytest.fail("compiled"))
    out = tmp_path / "no" / "plan.jsonl"
    words = ["plan", "digits_resnet", "--topology", "gpu:h200", "--json", str(out)]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"{out} cannot be written to: No such file or directory.\n"
    )


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
