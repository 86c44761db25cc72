"""The commands of `python -m train`: one file each, its flags over `train.api`."""
