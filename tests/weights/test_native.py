import ml_dtypes
import numpy as np
import pytest
from flax import traverse_util

from cnn_flax.weights import WeightsError, load_pretrained, read_checkpoint
from cnn_flax.weights.native import from_native, is_native, read_metadata, write
from cnn_flax.weights.variables import flatten, variable_shapes

SMALL = {"width": 8, "stage_sizes": (1,)}


def random_arrays(name="resnet18", **fields):
    rng = np.random.default_rng(0)
    shapes = variable_shapes(name, {**SMALL, "num_classes": 5, **fields}, 3, 16)
    return {p: rng.random(x.shape).astype(np.float32) for p, x in shapes.items()}


def test_what_is_written_loads_as_it_was(tmp_path):
    arrays = random_arrays()
    path = tmp_path / "ours.safetensors"
    write(path, arrays, {"model": "resnet18"})
    model, loaded = load_pretrained("resnet18", path, **SMALL)
    assert model.num_classes == 5
    loaded = flatten(loaded)
    assert loaded.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(loaded[name], x, err_msg=name)
    assert read_metadata(path) == {"model": "resnet18"}


def test_others_may_read_what_is_written(tmp_path):
    path, plain = tmp_path / "ours.safetensors", tmp_path / "plain"
    write(path, {"params/head/bias": np.zeros(3)}, {})
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_views_and_bfloat16_are_written_whole(tmp_path):
    x = np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3).T
    write(tmp_path / "w.safetensors", {"params/head/kernel": x}, {})
    (read,) = read_checkpoint(tmp_path / "w.safetensors").values()
    assert read.dtype == x.dtype
    np.testing.assert_array_equal(read, x)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, random_arrays(), {})
    before = path.read_bytes()
    with pytest.raises(Exception, match="object"):
        write(path, {"params/head/kernel": np.array([None])}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_names_tell_whose_file_it_is():
    assert is_native({"params/a/kernel": 0, "batch_stats/a/mean": 0})
    assert not is_native({"conv1.weight": 0, "params/a/kernel": 0})


def without(arrays, name):
    return {n: x for n, x in arrays.items() if n != name}


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: without(arrays, "params/head/bias"),
        lambda arrays: without(arrays, "params/conv1/conv/kernel"),
        lambda arrays: {**arrays, "params/more/bias": np.zeros(3)},
        lambda arrays: {**arrays, "params/conv1/bn/scale": np.zeros(3)},
    ],
)
def test_arrays_of_another_model_are_refused(change):
    with pytest.raises(WeightsError, match="does not fit resnet18; 'params/"):
        from_native("resnet18", change(random_arrays()), **SMALL)


@pytest.mark.slow
def test_auxiliary_heads_may_be_left_out():
    arrays = {
        path: np.zeros(leaf.shape, np.float32)
        for path, leaf in variable_shapes("googlenet", {}).items()
    }
    with_heads = from_native("googlenet", arrays)
    without_heads = from_native("googlenet", arrays, aux_logits=False)
    assert "aux1" in with_heads["params"]
    assert "aux1" not in without_heads["params"]
    assert traverse_util.flatten_dict(with_heads, sep="/").keys() == arrays.keys()


def test_other_files_say_nothing_of_themselves(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"\x80\x02")
    assert read_metadata(tmp_path / "x.pth") == {}
    assert read_metadata(tmp_path / "absent") == {}
