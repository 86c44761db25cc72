import jax
import pytest

from benchmarks.profiles import operations, own_times
from train.errors import UserError


def xspace(plane, *lines):
    """A profile of one plane. Each line: its name and events (name, start ns, ns)."""
    names = list(dict.fromkeys(name for _, events in lines for name, *_ in events))
    text = [f'planes {{ name: "{plane}"']
    for key, name in enumerate(names):
        text.append(
            f"event_metadata {{ key: {key} value {{ id: {key} name: '{name}' }} }}"
        )
    for line, events in lines:
        text.append(f"lines {{ name: '{line}' timestamp_ns: 1000")
        text += [
            f"events {{ metadata_id: {names.index(name)} "
            f"offset_ps: {start * 1000} duration_ps: {duration * 1000} }}"
            for name, start, duration in events
        ]
        text.append("}")
    return jax.profiler.ProfileData.text_proto_to_serialized_xspace(
        "\n".join([*text, "}"])
    )


def write(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "host.xplane.pb").write_bytes(content)


def test_a_time_is_without_that_of_the_operations_within():
    events = [("in", 2, 5), ("while", 0, 10), ("in", 5, 6), ("deep", 3, 4)]
    events += [("next", 10, 12)]
    assert own_times(events) == {"while": 6, "in": 3, "deep": 1, "next": 2}


def test_a_gpus_operations_are_the_kernels_of_its_streams(tmp_path):
    kernel = "void cutlass::Kernel"
    write(
        tmp_path,
        xspace(
            "/device:GPU:0",
            ("Stream #13(Compute)", [(kernel, 0, 300), ("loop_fusion", 400, 100)]),
            ("Stream #14(MemcpyH2D)", [("loop_fusion", 0, 100)]),
            ("Steps", [("1", 0, 900)]),
        ),
    )
    assert operations(tmp_path) == [
        (kernel, pytest.approx(300e-9), pytest.approx(0.6)),
        ("loop_fusion", pytest.approx(200e-9), pytest.approx(0.4)),
    ]
    assert len(operations(tmp_path, most=1)) == 1


def test_operations_are_not_counted_again_in_the_line_that_summarizes_streams(tmp_path):
    write(
        tmp_path,
        xspace(
            "/device:GPU:0",
            ("Stream #13(Compute)", [("kernel", 0, 300)]),
            ("XLA Ops", [("convolution.1", 0, 300)]),
        ),
    )
    assert [name for name, *_ in operations(tmp_path)] == ["convolution.1"]


def test_a_cpus_operations_are_those_of_xlas_threads_without_bookkeeping(tmp_path):
    write(
        tmp_path,
        xspace(
            "/host:CPU",
            ("python", [("main", 0, 900)]),
            (
                "tf_XLAEigen/1",
                [
                    ("ThunkExecutor::Execute", 0, 500),
                    ("dot", 0, 50),
                    ("end: dot", 50, 1),
                ],
            ),
            ("tf_XLAEigen/2", [("dot", 0, 150)]),
        ),
    )
    assert operations(tmp_path) == [("dot", pytest.approx(200e-9), 1.0)]


def test_the_newest_profile_counts(tmp_path):
    for when, name in (("2026_02", "new"), ("2026_01", "old")):
        write(tmp_path / when, xspace("/device:GPU:0", ("Stream #1", [(name, 0, 1)])))
    assert [name for name, *_ in operations(tmp_path)] == ["new"]


def test_a_missing_or_empty_profile_is_explained(tmp_path):
    with pytest.raises(UserError, match="no profile in"):
        operations(tmp_path)
    write(tmp_path / "a", xspace("/host:CPU", ("python", [("main", 0, 900)])))
    with pytest.raises(UserError, match="has no operations"):
        operations(tmp_path)
