import sys

import pytest

from benchmarks.worker import Worker, WorkerError


def test_a_worker_builds_a_program_and_runs_it_often():
    options = {"megabytes": 8}
    with Worker("benchmarks.programs:copy", options) as worker:
        assert worker.info == {"bytes": 16_000_000}
        assert worker.first_step > worker.run(3) > 0
        if sys.platform == "linux":
            # What is written; what is read was there.
            assert worker.extra_memory is not None
            assert 7e6 < worker.extra_memory < 100e6
            assert worker.peak_memory() > worker.extra_memory


def test_what_goes_wrong_in_a_worker_is_told():
    with pytest.raises(WorkerError, match="AttributeError: .* no attribute 'none'"):
        Worker("benchmarks.compare:none", {})
    with pytest.raises(WorkerError, match="unexpected keyword argument 'a'"):
        Worker("benchmarks.compare:compare", {"a": 1})
    # One that says nothing any more.
    with pytest.raises(WorkerError, match="ended with status 3"):
        Worker("os:_exit", {"status": 3})
