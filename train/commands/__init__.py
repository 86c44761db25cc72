"""The commands of `python -m train`: one file each, with flags, body and table."""
