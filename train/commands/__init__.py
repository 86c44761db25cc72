"""The commands of `python -m train`: one file each, with its flags, body and table."""
