import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from tests.support.devices import on_four_devices
from train.config import Parallelism
from train.errors import UserError
from train.learn.parallel import Placement, choose_devices, compile_step


def test_a_compiled_step_refuses_other_shapes():
    placement = Placement()
    arguments = placement.shapes((jnp.zeros(4),), placement.sharded)
    step = compile_step(lambda x: 2 * x, arguments, out=placement.sharded)
    assert (step(jnp.ones(4)) == 2).all()
    with pytest.raises(TypeError, match="differ from the types"):
        step(jnp.ones(5))


def test_donated_buffers_are_reused():
    placement = Placement()
    arguments = placement.shapes((jnp.zeros(4),), placement.replicated)
    step = compile_step(
        lambda x: x + 1, arguments, out=placement.replicated, donate=(0,)
    )
    x = jax.device_put(jnp.zeros(4), placement.replicated)
    assert step(x)[0] == 1
    assert x.is_deleted()


def test_a_batch_that_does_not_divide_evenly_is_refused_or_rounded_up():
    placement = Placement(jax.devices() * 4)
    assert [placement.round_up(n) for n in (1, 4, 9)] == [4, 4, 12]
    with pytest.raises(UserError, match="multiple of the 4 devices, got 6"):
        placement.check(6)
    placement.check(24, parts=3)
    message = "4 devices times --gradient-accumulation 3, got 16"
    with pytest.raises(UserError, match=message):
        placement.check(16, parts=3)
    placement.check(8, pairs=True)
    with pytest.raises(UserError, match="2 for each of the 4 devices, got 12"):
        placement.check(12, pairs=True)


def test_the_batches_that_are_not_refused_are_the_multiples_of_one_number():
    placement = Placement(jax.devices() * 4)

    def passes(size, parts, pairs):
        try:
            placement.check(size, parts, pairs)
        except UserError:
            return False
        return True

    for parts, pairs in itertools.product((1, 2, 3), (False, True)):
        unit = placement.batch_unit(parts, pairs)
        passing = [n for n in range(1, 50) if passes(n, parts, pairs)]
        assert passing == list(range(unit, 50, unit))


def test_a_mesh_must_fit_the_devices_and_the_other_flags():
    for mesh in ("model=2", "data=0,model=2", "data=2,model=2,", "2x2"):
        with pytest.raises(UserError, match="must be such as data=4,model=2"):
            Parallelism(mesh=mesh)
    with pytest.raises(UserError, match="has 8 devices, and --devices is 4"):
        Parallelism(mesh="data=4,model=2", devices=4)
    with pytest.raises(UserError, match="--mesh needs --parallel jit"):
        Parallelism("pmap", mesh="data=4,model=2")
    with pytest.raises(UserError, match="model=3, which must divide the 4 devices"):
        Placement(jax.devices() * 4, model=3)


def test_a_batch_is_split_over_the_axis_of_data_alone():
    placement = Placement(jax.devices() * 4, model=2)
    assert placement.parts == 2
    placement.check(6)
    with pytest.raises(UserError, match="multiple of the 2 devices, got 7"):
        placement.check(7)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("kernel", (3, 3, 8, 16), (None, None, None, "model")),
        ("kernel", (3, 3, 16, 8), (None, None, "model")),
        ("kernel", (3, 3, 8, 8), (None, None, None, "model")),
        ("kernel", (4096, 9), ("model",)),
        ("kernel", (3, 3, 3, 7), ()),
        ("scale", (16,), ()),
        ("mean", (16,), ()),
    ],
)
def test_a_kernel_is_split_along_its_largest_axis(name, shape, expected):
    tree = {"conv": {name: jax.ShapeDtypeStruct(shape, jnp.float32)}}
    placement = Placement(jax.devices() * 2, model=2)
    for state in (tree, {"trace": [tree]}):  # As in the optimizer's state.
        (sharding,) = jax.tree.leaves(placement.state(state))
        assert sharding.spec == PartitionSpec(*expected)
    (sharding,) = jax.tree.leaves(Placement(jax.devices()).state(tree))
    assert sharding.is_fully_replicated


def test_too_many_devices_is_an_error_that_names_the_existing_ones():
    with pytest.raises(
        UserError, match="9 devices are asked for, and there are 1: .*[Cc]pu"
    ):
        choose_devices(9)
    assert choose_devices(0) == choose_devices(1) == jax.devices()


@pytest.fixture(scope="module")
def four_devices():
    """The report of `four_devices.py` on four simulated devices, in float64."""
    program = Path(__file__).with_name("four_devices.py")
    return on_four_devices(program, JAX_ENABLE_X64="1")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit on 4", "pmap on 4", "mesh of 2 x 2"])
def test_ten_steps_equal_those_of_one_device(four_devices, way):
    # Augmentation and drop path follow from each image's index; BatchNorm is global.
    assert four_devices[way]["devices"] == 4
    assert four_devices[way]["difference"] < 1e-9


@pytest.mark.slow
def test_a_mesh_splits_the_kernels_with_their_momentum(four_devices):
    assert four_devices["jit on 4"]["split"] == 0
    found = four_devices["mesh of 2 x 2"]
    assert found["split"] == 2 * found["kernels"] > 0


@pytest.mark.slow
def test_a_mesh_and_one_device_restore_each_others_checkpoints(four_devices):
    assert four_devices["restored"] == {"mesh to one": True, "one to mesh": True}


@pytest.mark.slow
@pytest.mark.parametrize(
    "consistency",
    ["flexmatch", "softmatch", "freematch", "adamatch", "mixmatch", "abc"],
)
@pytest.mark.parametrize("way", ["jit on 4", "pmap on 4"])
def test_with_unlabelled_images_too(four_devices, way, consistency):
    # Under pmap the devices exchange what the method's state takes from their images.
    found = four_devices[f"{way}, {consistency}"]
    assert found["difference"] < 1e-9
    assert found["remembered"] > 10 or consistency in ("mixmatch", "abc")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit on 4", "pmap on 4"])
def test_steps_with_a_teacher_and_in_parts_equal_those_of_one_device(four_devices, way):
    found = four_devices[f"{way}, taught, in parts"]
    assert found["difference"] < 1e-9
    assert found["collectives"] == ["all-reduce"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["jit on 4", "pmap on 4"])
def test_no_device_gathers_the_batch(four_devices, way):
    assert "all-reduce" in four_devices[way]["collectives"]
    assert "all-gather" not in four_devices[way]["collectives"]


@pytest.mark.slow
def test_local_statistics_are_each_devices_own(four_devices):
    assert four_devices["local on 4"]["difference"] > 1e-3


@pytest.mark.slow
def test_evaluation_counts_every_image_once_on_any_number_of_devices(four_devices):
    for found in four_devices["evaluations"]:
        assert found["images"] == 359
        assert found["figures"] == pytest.approx(
            four_devices["evaluations"][0]["figures"], rel=1e-9
        )
