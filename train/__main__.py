"""`python -m train`; see `train.commands.main`."""

import sys

if __name__ == "__main__":
    from train.huge_pages import use_huge_pages

    use_huge_pages()  # Before any import that takes long.

from train.commands.main import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
