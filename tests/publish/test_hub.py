"""`cnn-flax push` and `hf-hub:` ids against a Hub on this machine."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

import cnn_flax
from cnn_flax.weights.variables import flatten
from tests.support.hub_server import HubServer
from tests.support.small_weights import random_variables, save_run

LOADING = """
import logging, sys
import numpy as np
import cnn_flax
from cnn_flax.weights.variables import flatten
for source in ("hf-hub:owner/digits", "owner/digits", "hf_hub:owner/digits@main"):
    model, variables = cnn_flax.load_pretrained("resnet18", source)
    assert model.width == 8
np.savez(sys.argv[1], **flatten(variables))
"""


def in_a_process(hub, home, *words):
    # A process of its own: huggingface_hub reads its address when it is imported.
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(home),
        "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_a_run_that_is_pushed_comes_back_by_its_id(tmp_path):
    variables = random_variables()
    run = save_run(tmp_path / "run", variables, steps=(1,))
    with HubServer() as hub:
        words = ("push", run, "--repo", "owner/digits", "--license", "mit")
        done = in_a_process(hub, tmp_path, "-m", "cnn_flax.cli", *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"owner/digits: resnet18, {hub.address}/owner")
        files = hub.files["owner/digits"]
        assert {"README.md", "config.json", "model.safetensors"} <= set(files)
        assert json.loads(files["config.json"])["label_names"] == list("abcde")
        assert "hf-hub:owner/digits" in files["README.md"].decode()
        assert hub.tokens == {"Bearer hf_secret"}
        done = in_a_process(hub, tmp_path, "-c", LOADING, tmp_path / "back.npz")
        assert done.returncode == 0, done.stderr
    back = dict(np.load(tmp_path / "back.npz"))
    jax.tree.map(np.testing.assert_array_equal, back, flatten(variables))


@pytest.mark.slow
def test_a_hub_that_refuses_is_said_in_a_line(tmp_path):
    run = save_run(tmp_path / "run", random_variables(), steps=(1,))
    with HubServer() as hub:
        hub.address += "/elsewhere"  # Where it answers 404.
        words = ("push", run, "--repo", "owner/digits", "--license", "mit")
        done = in_a_process(hub, tmp_path, "-m", "cnn_flax.cli", *words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "The Hugging Face Hub does not take owner/digits" in done.stderr


def test_without_huggingface_hub_the_extra_is_named(tmp_path, monkeypatch, capsys):
    from cnn_flax.cli import main

    run = save_run(tmp_path / "run", random_variables(), steps=(1,))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    words = ["push", str(run), "--repo", "owner/digits", "--license", "mit"]
    assert main(words) == 2
    assert "[hub]'" in capsys.readouterr().err


def test_an_id_with_a_prefix_is_no_folder(tmp_path, monkeypatch):
    import huggingface_hub

    def download(repository, file, **options):
        asked.append((repository, options.get("revision")))
        raise ValueError("No such repository.")

    asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/name").mkdir(parents=True)
    with pytest.raises(cnn_flax.weights.WeightsError, match="Hub does not give it"):
        cnn_flax.load_pretrained("resnet18", "hf-hub:owner/name@v1.0")
    assert asked == [("owner/name", "v1.0")]
