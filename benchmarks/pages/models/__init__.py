"""`docs/models`: the model zoo, one page per family."""
