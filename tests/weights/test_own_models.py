"""A user's own model, for which there are no torch names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import cnn_flax
from cnn_flax import registry
from cnn_flax.cli import main
from cnn_flax.weights import WeightsError, load_pretrained, read_checkpoint
from cnn_flax.weights.identify import identify_weights
from cnn_flax.weights.native import write
from cnn_flax.weights.variables import flatten
from tests.support.small_weights import save_run

NAME = "tiny_net"


class TinyNet(nn.Module):
    """Has its own names, a scalar parameter and an auxiliary head."""

    num_classes: int = 3
    width: int = 4
    aux_logits: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train=False):
        scale = self.param("input_scale", nn.initializers.ones_init(), ())
        x = nn.Conv(self.width, (3, 3), strides=2, name="patches")(images * scale)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        if self.aux_logits and self.num_classes and (train or self.is_initializing()):
            logits = nn.Dense(self.num_classes, name="early")(x.mean((1, 2)))
            self.sow("intermediates", "aux1_logits", logits)
        x = x.mean((1, 2))
        if self.num_classes == 0:
            return x
        return nn.Dense(self.num_classes, name="head")(x)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", {**registry._registry()})

    def tiny_net(**fields):
        return TinyNet(**fields)

    registry.register(paper="Nobody 2025, Nothing, nowhere", image_size=16)(tiny_net)


def variables_of(channels=3, **fields):
    images = jnp.zeros((1, 16, 16, channels))
    variables = cnn_flax.create_model(NAME, **fields).init(jax.random.key(1), images)
    return {name: variables[name] for name in ("params", "batch_stats")}


def save(path, variables):
    arrays = {name: np.asarray(x) for name, x in flatten(variables).items()}
    write(path, arrays, {"model": NAME})
    return path


def assert_same(variables, others):
    variables, others = flatten(variables), flatten(others)
    assert variables.keys() == others.keys()
    for path, x in variables.items():
        np.testing.assert_array_equal(x, others[path], err_msg=path)


@pytest.mark.parametrize("num_classes", [0, 3, 5])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_file_of_our_own_format_loads(tmp_path, num_classes, channels):
    variables = variables_of(channels, num_classes=num_classes)
    path = save(tmp_path / "tiny.safetensors", variables)
    model, loaded = load_pretrained(NAME, path)
    assert model.num_classes == num_classes
    assert_same(loaded, variables)


def test_the_head_follows_the_number_of_classes(tmp_path):
    variables = variables_of()
    path = save(tmp_path / "tiny.safetensors", variables)
    model, loaded = load_pretrained(NAME, path, num_classes=7)
    assert loaded["params"]["head"]["kernel"].shape == (4, 7)
    assert loaded["params"]["early"]["kernel"].shape == (4, 7)
    for name in ("head", "early"):
        del variables["params"][name], loaded["params"][name]
    assert_same(loaded, variables)
    model, loaded = load_pretrained(NAME, path, num_classes=0)
    assert model.apply(loaded, jnp.zeros((1, 16, 16, 3))).shape == (1, 4)


def test_grey_images_give_what_they_give_as_three_channels(tmp_path):
    path = save(tmp_path / "tiny.safetensors", variables_of())
    model, colour = load_pretrained(NAME, path)
    _, grey = load_pretrained(NAME, path, in_channels=1)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 1))
    np.testing.assert_allclose(
        model.apply(grey, images),
        model.apply(colour, jnp.repeat(images, 3, axis=-1)),
        rtol=1e-5,
    )


def test_auxiliary_heads_may_be_absent_or_left_out(tmp_path):
    without = variables_of(aux_logits=False)
    model, loaded = load_pretrained(NAME, save(tmp_path / "a.safetensors", without))
    assert not model.aux_logits
    assert_same(loaded, without)
    path = save(tmp_path / "b.safetensors", variables_of())
    model, loaded = load_pretrained(NAME, path, aux_logits=False)
    assert "early" not in loaded["params"]


def test_fields_that_change_the_parameters_are_given_again(tmp_path):
    path = save(tmp_path / "tiny.safetensors", variables_of(width=6))
    with pytest.raises(WeightsError, match=f"does not fit {NAME}; 'params/"):
        load_pretrained(NAME, path)
    _, loaded = load_pretrained(NAME, path, width=6)
    assert_same(loaded, variables_of(width=6))


def test_its_run_loads_and_converts(tmp_path, capsys):
    variables = variables_of(num_classes=5)
    model = {"name": NAME, "fields": {"num_classes": 5, "dtype": "float32"}}
    run = save_run(tmp_path / "run", variables, steps=(1,), model=model)
    _, loaded = load_pretrained(NAME, run)
    assert_same(loaded, variables)

    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.safetensors"
    for source, out in ((run, ours), (ours, again)):
        assert main(["convert", str(source), str(out)]) == 0
        arrays = read_checkpoint(out)
        for path, x in flatten(variables).items():
            np.testing.assert_array_equal(arrays[path], x)
    words = ["convert", str(run), str(tmp_path / "t.safetensors"), "--names", "torch"]
    assert main(words) == 2
    assert f"No torch names are known for the model '{NAME}'" in capsys.readouterr().err


def test_its_weights_have_the_defaults_of_the_model(tmp_path):
    path = save(tmp_path / "tiny.safetensors", variables_of())
    found = identify_weights(None, path)
    assert (found.name, found.entry, found.fields) == (NAME, None, {})
    assert (found.image_size, found.resize, found.crop_pct) == (16, 18, 0.875)
