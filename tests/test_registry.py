import subprocess
import sys

import jax.numpy as jnp
import pytest

import cnn_flax
from cnn_flax import registry
from cnn_flax.catalogue import CatalogueEntry, catalogue


def test_names_are_sorted_and_match_a_pattern():
    names = cnn_flax.list_models()
    assert names == sorted(names)
    assert cnn_flax.list_models("resnet*d") == [
        "resnet101d",
        "resnet18d",
        "resnet34d",
        "resnet50d",
    ]


def test_fields_reach_the_module():
    model = cnn_flax.create_model("resnet18", num_classes=7, dtype=jnp.bfloat16)
    assert (model.num_classes, model.dtype) == (7, jnp.bfloat16)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet5O", "resnet50"), ("resnet", "resnet18"), ("RESNET34", "resnet34")],
)
def test_an_unknown_model_is_refused_with_the_nearest_names(name, near):
    for function in (cnn_flax.create_model, cnn_flax.model_info):
        with pytest.raises(registry.UnknownModelError, match=f"{name}.*{near}"):
            function(name)


def test_an_unknown_field_is_refused_with_the_nearest_names():
    with pytest.raises(TypeError, match="no field 'num_clases'. Nearest: num_classes"):
        cnn_flax.create_model("resnet18", num_clases=10)


@pytest.mark.parametrize("field", ["pretrained", "weights"])
def test_a_model_with_weights_is_what_load_pretrained_gives(field):
    call = r"cnn_flax\.load_pretrained\('resnet18'\)"
    with pytest.raises(TypeError, match=f"leave out {field}=True.*{call}"):
        cnn_flax.create_model("resnet18", **{field: True})


def test_info_says_what_is_known_of_a_model():
    info = cnn_flax.model_info("resnet50")
    assert info.name == "resnet50"
    assert info.family == "resnet"
    assert info.parameters == 25_557_032
    assert info.image_size == 224
    assert info.mean == (0.485, 0.456, 0.406)
    assert info.std == (0.229, 0.224, 0.225)
    assert info.interpolation == "bilinear"
    assert info.crop_pct == 224 / 256
    assert "1512.03385" in info.paper
    assert info.weights[0].url.startswith("https://")


def test_info_of_a_model_without_published_weights_is_imagenets():
    info = cnn_flax.model_info("lab_resnet34")
    assert info.weights == ()
    assert (info.mean, info.crop_pct) == ((0.485, 0.456, 0.406), 0.875)


def test_a_name_is_registered_once():
    def resnet18():
        pass

    with pytest.raises(ValueError, match="'resnet18' already"):
        registry.register(paper="")(resnet18)


def test_the_catalogue_has_what_is_registered():
    assert catalogue() == {
        name: CatalogueEntry(entry.family, entry.paper, entry.image_size)
        for name in cnn_flax.list_models()
        for entry in [registry.registration(name)]
    }


def test_public_names_load_when_they_are_used():
    for name in cnn_flax.__all__:
        assert getattr(cnn_flax, name) is not None
    assert set(cnn_flax.__all__) <= set(dir(cnn_flax))
    with pytest.raises(AttributeError, match="has no attribute 'create_modl'"):
        _ = cnn_flax.create_modl


def test_importing_and_listing_load_nothing_heavy_and_start_no_device():
    program = (
        "import sys, cnn_flax.cli\n"
        "assert cnn_flax.cli.main(['list']) == 0\n"
        "assert cnn_flax.cli.main(['lst']) == cnn_flax.cli.main(['info']) == 2\n"
        "slow = {'jax', 'flax', 'optax', 'numpy', 'asyncio'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
        "cnn_flax.load_pretrained, cnn_flax.create_model('resnet18')\n"
        "import jax._src.xla_bridge as bridge\n"
        "assert not bridge.backends_are_initialized()\n"
        "heavy = {'tensorflow_datasets', 'tensorflow', 'grain', 'orbax.checkpoint',"
        " 'matplotlib', 'PIL', 'sklearn', 'torch', 'huggingface_hub'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
