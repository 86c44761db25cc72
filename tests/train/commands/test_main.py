import os
import subprocess
import sys

import pytest

from cnn_flax.installing import install_command
from train import recipes
from train.__main__ import main


def test_without_arguments_the_recipes_are_listed(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert "python -m train RECIPE" in shown
    lines = shown.splitlines()
    for name in recipes.names():
        assert lines.count(f"  {name}") == 1
    assert max(map(len, lines)) <= 80
    folders = shown.partition("Your own images:")[2].partition("\n\n")[0]
    assert "features_folder" in folders and "digits" not in folders


def test_listing_and_help_import_no_heavy_packages():
    code = """
import sys
from train.__main__ import main
main([])
main(["--help"])
assert not {"numpy", "asyncio"} & set(sys.modules)
try:
    main(["digits_resnet", "--help"])
except SystemExit:
    pass
heavy = {"jax", "flax", "optax", "orbax", "grain", "matplotlib", "sklearn", "PIL"}
sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("digit_resnet", "digits_resnet"),
        ("fashion_mnist", "fashion_mnist_resnet18"),
        ("evalute", "evaluate"),
    ],
)
def test_a_misspelt_recipe_suggests_the_nearest_one(capsys, word, near):
    assert main([word]) == 2
    assert capsys.readouterr().err == (
        f"There is no recipe {word!r}. Did you mean {near}? `python -m train` lists "
        "them.\n"
    )


def test_a_name_unlike_any_recipe_gets_no_suggestion(capsys):
    assert main(["xyzzy"]) == 2
    assert "Did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rat", "1"], "--learning-rate"),
        (["--epoch", "1"], "--epochs"),
        (["--epochs", "three"], "invalid literal for int() with base 10: 'three'"),
        (["--optimizer", "adam"], "('sgd', 'adamw', 'lamb')"),
        (["--model-fields", "width"], "'width' is not of the form NAME=VALUE"),
    ],
)
def test_a_wrong_flag_is_explained(capsys, words, message):
    with pytest.raises(SystemExit) as error:
        main(["digits_resnet", *words])
    assert error.value.code == 2
    # tyro draws a box around its messages, and breaks long lines.
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in shown


@pytest.mark.parametrize(
    "command",
    [
        "digits_resnet",
        "evaluate run",
        "noisy-student noisy_student_digits",
        "plan digits_resnet --topology v5e:2x2",
    ],
)
def test_a_wrong_flag_names_the_help_of_its_command(capsys, command):
    with pytest.raises(SystemExit):
        main([*command.split(), "--nonsense"])
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    named = " ".join(command.split()[: 1 + command.startswith(("noisy", "plan"))])
    assert f"For full helptext, run python -m train {named} --help" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "nowhere"], "nowhere holds no run."),
        (["predict", "nowhere", "image.png"], "nowhere holds no run."),
        (["predict", "nowhere"], "No image was given"),
        (["predict", "nowhere", "a.png", "--top", "0"], "--top must be at least 1"),
        (
            ["predict", "resnet50", "my cat.png"],
            "weights: cnn-flax predict resnet50 'my cat.png'",
        ),
        (
            ["evaluate", "resnt18", "--weights", "weights.npz", "--data", "digits"],
            "There is no model 'resnt18'. Nearest: resnet18",
        ),
        (
            ["advise", "--data", "digits", "--init", "published", "--model", "resnt18"],
            "There is no model 'resnt18'. Nearest: resnet18",
        ),
        (
            ["pseudo-label", "nowhere", "--data", "digits", "--out", "labels.npy"],
            "nowhere holds no run.",
        ),
        (["digits_resnet", "--data", "digitz"], "did you mean digits?"),
        (["digits_resnet", "--model", "resnet19"], "Nearest: resnet18"),
        (["digits_resnet", "--data", "folder:nowhere"], "nowhere"),
    ],
)
def test_a_user_error_is_one_line_and_exit_code_2(
    capsys, monkeypatch, tmp_path, words, message
):
    monkeypatch.chdir(tmp_path)
    for command in ("advise", "evaluate", "predict", "pseudo_label", "run"):
        name = f"train.commands.{command}.use_compilation_cache"
        monkeypatch.setattr(name, lambda: None)
    assert main(words) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["digits_resnet"],
        ["plan", "digits_resnet", "--topology", "v5e:1x1"],
        ["noisy-student", "noisy_student_digits"],
    ],
)
def test_a_value_that_does_not_fit_is_one_plain_line(capsys, words):
    assert main([*words, "--mesh", "2x2"]) == 2
    assert capsys.readouterr().err == (
        "--mesh is '2x2', and must be such as data=4,model=2: the batch in 4 parts, "
        "each on 2 devices.\n"
    )


def test_a_missing_package_is_one_line_that_installs_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("train.commands.run.use_compilation_cache", lambda: None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert main(["digits_resnet", "--out", str(tmp_path / "run")]) == 2
    command = install_command("train")
    expected = f"The package 'sklearn' is missing: {command}\n"
    assert capsys.readouterr().err == expected


def test_without_tyro_and_jax_the_first_line_says_what_to_install():
    code = """
import runpy, sys
sys.modules["tyro"] = sys.modules["jax"] = sys.modules["jaxlib"] = None
runpy.run_module("train", run_name="__main__", alter_sys=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "The package 'tyro' is missing: pip install -e '.[train]', in the checkout\n"
    )


def test_model_fields_are_numbers_booleans_tuples_and_strings():
    from train.config import parse_fields

    words = ["width=16", "small_inputs=True", "shortcut=zero_pad", "stage_sizes=(1,2)"]
    assert parse_fields(words) == {
        "width": 16,
        "small_inputs": True,
        "shortcut": "zero_pad",
        "stage_sizes": (1, 2),
    }


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(*arguments):
        raise ValueError("a bug")

    monkeypatch.setattr("train.commands.evaluate.Evaluate.__call__", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["evaluate", "nowhere"])


@pytest.mark.parametrize("words", [[], ["digits_resnet"], ["evaluate", "nowhere"]])
def test_windows_gets_one_line_and_exit_code_2(capsys, monkeypatch, words):
    monkeypatch.setattr("train.commands.main.sys.platform", "win32")
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "python -m train runs on Linux and macOS; on Windows, in WSL 2.\n"
    )


def test_it_runs_from_any_folder(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "train"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "digits_resnet" in done.stdout


def test_compiled_programs_are_cached_for_the_next_start(tmp_path, monkeypatch):
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    from train.compilation_cache import use_compilation_cache

    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )
    before = {name: getattr(jax.config, name) for name in names}
    try:
        compilation_cache.reset_cache()
        use_compilation_cache()
        jax.jit(lambda x: 3 * x + 17)(1.0)
        assert list((tmp_path / "cnn_flax" / "xla").iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
