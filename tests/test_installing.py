import importlib.metadata
import json
from types import SimpleNamespace

import pytest

from cnn_flax import installing
from cnn_flax.installing import install_command


def test_a_checkout_is_installed_from_its_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(installing._ROOT)
    assert install_command("cli") == "pip install -e '.[cli]'"
    monkeypatch.chdir(tmp_path)
    assert (
        install_command("hub", "cli") == f"pip install -e '{installing._ROOT}[hub,cli]'"
    )


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        (None, "pip install 'cnn-flax[cli]'"),
        (
            {"url": "https://x.org/cnn_flax-1-py3-none-any.whl", "archive_info": {}},
            "pip install 'cnn-flax[cli] @ https://x.org/cnn_flax-1-py3-none-any.whl'",
        ),
        (
            {
                "url": "https://x.org/cnn_flax.git",
                "vcs_info": {"vcs": "git", "commit_id": "abc"},
            },
            "pip install 'cnn-flax[cli] @ git+https://x.org/cnn_flax.git@abc'",
        ),
        ({"url": "file:///nowhere/cnn_flax.whl"}, "pip install 'cnn-flax[cli]'"),
    ],
)
def test_elsewhere_an_extra_comes_from_where_the_package_came(
    monkeypatch, tmp_path, recorded, expected
):
    monkeypatch.setattr(installing, "_ROOT", tmp_path)
    text = recorded and json.dumps(recorded)
    found = SimpleNamespace(read_text=lambda name: text)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
    assert install_command("cli") == expected
