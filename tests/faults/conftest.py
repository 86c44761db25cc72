from tests.train.conftest import quiet, tiny, undrawn

__all__ = ["quiet", "tiny", "undrawn"]
