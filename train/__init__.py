"""The training programs: `python -m train`."""
