from benchmarks.machine import environment, measured_on, today_here


def test_the_environment_names_device_and_versions():
    assert {"device", "processor", "python", "jax", "flax"} <= set(environment())


def test_rows_of_one_day_and_machine_are_described_once():
    row = {"date": "2026-01-02", "machine": "m, 2 cores", "jax": "0.1"}
    older = {**row, "date": "2026-01-01"}
    assert row.keys() == today_here().keys()
    assert measured_on([row, older, row]) == (
        "2026-01-01, CPU (m, 2 cores), JAX 0.1; 2026-01-02, CPU (m, 2 cores), JAX 0.1"
    )
