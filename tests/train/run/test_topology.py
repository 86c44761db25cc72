import importlib.util

import pytest

from cnn_flax.installing import install_command
from train.__main__ import main
from train.errors import UserError
from train.run.topology import CHIPS, open_topology

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the extra plan is not installed: libtpu writes to the standard error of "
    "every program that uses JAX, so it is not among what all tests need",
)


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ("name", "chips", "kind"),
    [
        ("v4:2x2x1", 4, "TPU v4"),
        ("v5e:1x1", 1, "TPU v5 lite"),
        ("v5e:2x4", 8, "TPU v5 lite"),
        ("v5p:4x4x4", 64, "TPU v5"),
        ("v6e:16x16", 256, "TPU v6 lite"),
    ],
)
def test_a_slice_has_one_device_per_chip(name, chips, kind):
    topology = open_topology(name)
    assert topology.chips == chips
    assert {device.device_kind for device in topology.devices} == {kind}
    assert topology.chip is CHIPS[name.partition(":")[0]]
    assert not topology.is_estimate


@pytest.mark.parametrize(
    "name",
    ["v5e", "v5e:3x3", "v5e:2x2x1", "v5e:0x4", "v4:2x2", "v3:2x2", "gpu:v5e", "h200x8"],
)
def test_an_unknown_topology_names_those_that_there_are(name):
    with pytest.raises(UserError, match=f"no topology '{name}'.*16x16.*gpu:h200x8"):
        open_topology(name)


@needs_libtpu
def test_a_slice_that_libtpu_does_not_know_is_unknown():
    with pytest.raises(UserError, match="no topology 'v5p:3x2x1'.*multiples of 4"):
        open_topology("v5p:3x2x1")


def test_a_missing_libtpu_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["plan", "digits_resnet", "--topology", "v5e:2x2"]) == 2
    assert capsys.readouterr().err.strip() == (
        "v5e:2x2 needs libtpu, which compiles for TPUs without one: "
        f"{install_command('plan')}, on Linux."
    )


def test_gpus_are_estimated_on_devices_of_the_cpu():
    topology = open_topology("gpu:a100")
    assert topology.is_estimate and topology.chips == 1
    assert topology.devices[0].platform == "cpu"
    # JAX has its devices by now.
    with pytest.raises(UserError, match="xla_force_host_platform_device_count=4096"):
        open_topology("gpu:a100x4096")


def test_the_number_of_gpus_has_an_upper_bound():
    with pytest.raises(UserError, match="^gpu:h200x100000 .* there can be 4,096.$"):
        open_topology("gpu:h200x100000")
