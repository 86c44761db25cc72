"""The tutorials: notebooks that run, and whose outputs are what a run printed."""

import json
import os
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def test_the_outputs_are_those_of_one_run_from_top_to_bottom(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds <= {"stream", "execute_result", "display_data"}
    streams = [output.get("name") for cell in code for output in cell["outputs"]]
    assert "stderr" not in streams


def test_a_notebook_is_small_and_tells_nothing_of_the_machine_that_ran_it(path):
    text = path.read_text("utf-8")
    assert len(text) < 300_000
    assert not re.findall(r"/(?:home|tmp|root|work|usr)/", text)


def test_links_to_other_tutorials_are_right(path):
    text = " ".join(
        "".join(c["source"]) for c in cells(path) if c["cell_type"] != "code"
    )
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.slow
def test_a_tutorial_runs(path, tmp_path, tmp_path_factory, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    # As a reader runs it, but with a cache of programs that the tutorials share.
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS", raising=False)
    cache = tmp_path_factory.getbasetemp() / "tutorials"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    resources = {"metadata": {"path": str(tmp_path)}}
    ran = client.NotebookClient(notebook, timeout=600, resources=resources).execute()
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output.output_type for cell in code for output in cell.outputs]
    assert outputs and "error" not in outputs
