"""`python -m train`; see `train.commands.main`."""

import sys

if __name__ == "__main__":
    from train.huge_pages import use_huge_pages

    use_huge_pages()  # Before any import that takes long.

try:
    from train.commands.main import leave, main
except ModuleNotFoundError as error:
    from train.extras import missing_extra

    if __name__ != "__main__" or (message := missing_extra(error)) is None:
        raise
    print(message, file=sys.stderr)
    sys.exit(2)

__all__ = ["main"]

if __name__ == "__main__":
    leave(main())
