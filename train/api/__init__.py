"""The programs as functions, which `train` hands on and the commands call."""
