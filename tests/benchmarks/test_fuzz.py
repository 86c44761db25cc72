import hashlib
import json
import random
import subprocess
import sys

import pytest

from benchmarks.__main__ import main
from benchmarks.fuzz import Tally, fuzz, shares
from benchmarks.fuzzing.mutators import json_bytes, mutate_bytes, mutate_json
from benchmarks.fuzzing.pickles import mutate_pickle, state_dict, tensor
from benchmarks.fuzzing.readers import READERS, make_input


@pytest.mark.slow
def test_thousands_of_hostile_files_are_read_or_refused():
    *_, (tallies, faults) = fuzz(list(READERS), 4000, seed=1)
    assert not faults
    tried = {name: sum(tally.counts.values()) for name, tally in tallies.items()}
    assert tried == shares(list(READERS), 4000)
    # Mutations leave something of each file that is read.
    never = {name for name, tally in tallies.items() if not tally.counts["read"]}
    assert never <= {"image_avif", "image_jpeg2000", "checkpoint", "array_record"}


@pytest.mark.slow
def test_every_kind_of_fault_is_counted_once():
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.faulty_readers"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    names = ("other", "memory", "crashed", "hung")
    expected = {name: {"read": 4, name: 1} for name in names}
    expected |= {name: {"read": 4, "code": 1} for name in ("command", "write")}
    expected |= {
        "two lines": {"read": 4, "other": 1},
        "refused": {"read": 4, "refused": 1},
    }
    assert printed["counts"] == expected
    assert printed["found"] == dict.fromkeys(expected.keys() - {"refused"}, 2)


@pytest.mark.parametrize(
    ("reader", "digest"),
    [
        ("torch_legacy", "7a961a75681f3492"),
        ("safetensors", "25aa88bd789ce5ec"),
        ("metrics", "2871e3dff2205332"),
    ],
)
def test_an_input_is_always_the_same_bytes(reader, digest):
    made = [make_input(reader, 3, number) for number in range(50)]
    assert made == [make_input(reader, 3, number) for number in range(50)]
    assert len({str(files) for files in made}) > 40
    assert hashlib.sha256(str(made).encode()).hexdigest()[:16] == digest


def test_mutations_leave_the_original_as_it_is():
    rng = random.Random(0)
    tree = {"a": [1, {"b": "c"}], "d": {"e": 0.5}}
    changed = [mutate_json(rng, tree) for _ in range(200)]
    assert tree == {"a": [1, {"b": "c"}], "d": {"e": 0.5}}
    assert sum(x != tree for x in changed) > 150
    assert json_bytes(rng, tree, mutate=False) == json.dumps(tree).encode()
    pickle = state_dict({"a": tensor("0", 4, (4,), (1,))})
    assert len({mutate_pickle(rng, pickle) for _ in range(100)}) > 80
    assert len({mutate_bytes(rng, bytes(20)) for _ in range(100)}) > 60


def test_inputs_are_shared_by_weight():
    counts = shares(["safetensors", "torch_zip", "checkpoint"], 1210)
    assert counts == {"safetensors": 602, "torch_zip": 602, "checkpoint": 5}
    assert set(shares(list(READERS), 1).values()) == {1}


def test_a_tally_counts_faults_and_rates():
    tally = Tally(seconds=2.0, slowest=0.25, peak=3_000_000)
    tally.counts |= {"read": 2, "refused": 4, "hung": 1, "code": 1}
    assert tally.faults == 2
    row = tally.row("x")
    assert (row["inputs"], row["inputs_per_second"]) == (8, 4)
    assert (row["peak_megabytes"], row["slowest_milliseconds"]) == (3.0, 250.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--reader", "torch_zipp"), "no reader 'torch_zipp'. Nearest: torch_zip"),
        (("--input", "3"), "--input is one of a reader: give --reader NAME."),
        (("--inputs", "0"), "0 is less than 1"),
    ],
)
def test_bad_arguments_are_explained(capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        main(["fuzz", *arguments])
    assert message in capsys.readouterr().err + str(ended.value.code)


def test_the_files_of_one_input_are_written(tmp_path, capsys):
    main(["fuzz", "--reader", "metrics", "--input", "7", "--out", str(tmp_path)])
    (files,) = [make_input("metrics", 0, 7)]
    assert (tmp_path / "metrics.jsonl").read_bytes() == files["metrics.jsonl"]
    assert f"{len(files['metrics.jsonl'])} bytes" in capsys.readouterr().out
