from docs.results import few_labels, rows


def row(arm, labels, seed, accuracy, **more):
    counts = {"steps": 1000, "parameters": 78394, "seconds": 60.0}
    place = {"arm": arm, "labels": labels, "seed": seed, "accuracy": accuracy}
    where = {"date": "2026-01-01", "machine": "m", "jax": "0"}
    return {**place, **counts, **where, **more}


def test_gains_are_taken_seed_by_seed():
    found = []
    for seed, alone in enumerate((0.70, 0.80, 0.75)):
        for arm in few_labels.ARMS:
            gain = 0.0 if arm == "supervised" else 0.01 * (1 + seed)
            rounds = [alone - 0.02, alone, alone + gain]
            found.append(row(arm, 250, seed, alone + gain, rounds=rounds))
    text = few_labels.section(found)
    assert "| supervised | 75.0 % (70.0 to 80.0) | 1.0 |" in text
    assert "| FixMatch | 77.0 % (71.0 to 82.0) | 1.0 |" in text
    assert "| FixMatch | +2.0 (+1.0 to +3.0) |" in text
    assert "| 1 | 73.0 % (68.0 to 78.0) |" in text
    assert "| 3 | 77.0 % (71.0 to 82.0) |" in text


def test_every_arm_was_measured_from_every_seed_in_equal_steps():
    measured = rows.read("few_labels")
    counts = dict.fromkeys(row["labels"] for row in measured)
    found = [(row["labels"], row["seed"], row["arm"]) for row in measured]
    seeds, arms = few_labels.SEEDS, few_labels.ARMS
    assert found == [(n, seed, arm) for n in counts for seed in seeds for arm in arms]
    assert len({row["steps"] for row in measured}) == 1


def test_with_250_labels_more_is_learned_from_images_without_labels():
    measured = rows.read("few_labels")
    accuracy = {(r["labels"], r["seed"], r["arm"]): r["accuracy"] for r in measured}

    def gains(arm):
        return [
            accuracy[250, seed, arm] - accuracy[250, seed, "supervised"]
            for seed in few_labels.SEEDS
        ]

    assert min(gains("FixMatch")) > 0
    assert min(gains("Noisy Student")) > 0
    assert min(gains("distilled")) > 0
