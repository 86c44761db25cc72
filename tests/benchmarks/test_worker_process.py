import subprocess
import sys

import pytest

from benchmarks.profiles import operations
from benchmarks.worker_process import WorkerError, WorkerProcess, start_workers


@pytest.mark.slow
def test_a_worker_builds_a_program_and_runs_it_often():
    options = {"megabytes": 8}
    with WorkerProcess("benchmarks.network_programs:copy", options) as worker:
        assert worker.info == {"bytes": 16_000_000}
        assert worker.first_step > worker.run(3) > 0
        if sys.platform == "linux":
            # The array that is written; the one that is read existed before.
            assert worker.extra_memory is not None
            assert 7e6 < worker.extra_memory < 100e6
            assert worker.peak_memory() > worker.extra_memory


@pytest.mark.slow
def test_an_error_in_a_worker_is_reported():
    with pytest.raises(WorkerError, match="AttributeError: .* no attribute 'none'"):
        WorkerProcess("benchmarks.compare:none", {})
    with pytest.raises(WorkerError, match="unexpected keyword argument 'a'"):
        WorkerProcess("benchmarks.compare:compare", {"a": 1})
    # A process that ends without a reply.
    with pytest.raises(WorkerError, match="ended with status 3"):
        WorkerProcess("os:_exit", {"status": 3})


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_noted_and_the_others_run():
    arguments = {
        "none": ("benchmarks.network_programs:none", {}),
        "copy": ("benchmarks.network_programs:copy", {"megabytes": 1}),
    }
    rows = {name: {} for name in arguments}
    with start_workers(arguments, rows) as workers:
        assert list(workers) == ["copy"]
        assert workers["copy"].run(1) > 0
    assert "no attribute 'none'" in rows["none"]["error"]
    assert rows["copy"] == {}
    with (
        pytest.raises(WorkerError, match="no attribute 'none'"),
        start_workers(arguments),
    ):
        pass


def test_a_peers_process_has_no_jax():
    # It would count in the peer's memory, and hide that of torch on a GPU.
    code = "import sys, benchmarks.worker_process; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_worker_profiles_its_program(tmp_path):
    with WorkerProcess("benchmarks.network_programs:copy", {"megabytes": 1}) as worker:
        worker.profile(2, tmp_path)
    names = [name for name, *_ in operations(tmp_path)]
    assert any("neg" in name for name in names), names
