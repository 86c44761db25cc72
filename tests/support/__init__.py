"""What several test files share: reference figures, small models, runs, programs."""
