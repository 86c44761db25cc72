"""Files for one reader that follow the branches of its code, by atheris.

    pip install atheris
    python -m benchmarks.fuzzing.guided torch_zip --seconds 300

atheris mutates one file of an input, keeps what reaches new branches of our readers and
of the pure Python below them, and stops at the first exception that the reader does not
document. The input is then in the folder of `--out`, as `crash-HASH`; given in place of
`--seconds`, `--input FILE` reads it again.
"""

import argparse
import importlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What is instrumented: our code, and parsers in Python that it calls.
_PACKAGES = ["cnn_flax", "train", "zipfile", "tarfile", "gzip", "json", "csv", "PIL"]
_SEEDS = 100  # Inputs of `make_input` that mutation begins with.


def main() -> None:
    """Runs the command line; ends with atheris' exit code."""
    flags = _parser().parse_args()
    try:
        atheris: Any = importlib.import_module("atheris")
    except ModuleNotFoundError:
        sys.exit("It needs atheris: pip install atheris")
    with atheris.instrument_imports(include=_PACKAGES):
        from benchmarks.fuzzing.readers import READERS, make_input
    if flags.reader not in READERS:
        sys.exit(f"There is no reader {flags.reader!r}: {', '.join(READERS)}.")
    warnings.simplefilter("ignore")
    reader = READERS[flags.reader]
    base = make_input(flags.reader, 0, 0)
    names = sorted(base)

    def try_input(data: bytes) -> None:
        """Reads the base input with one of its files replaced."""
        name = names[data[0] % len(names)] if data else names[0]
        with tempfile.TemporaryDirectory(dir=_memory()) as folder:
            for other, contents in {**base, name: data[1:]}.items():
                path = Path(folder, other)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(contents)
            try:
                reader.read(Path(folder))
            except reader.raises as error:
                if len(str(error).splitlines()) > 1:
                    raise AssertionError("The message has several lines.") from error

    def seeds() -> Iterator[bytes]:
        for number in range(_SEEDS):
            for name, contents in make_input(flags.reader, flags.seed, number).items():
                if name in names:
                    yield bytes([names.index(name)]) + contents

    flags.out.mkdir(parents=True, exist_ok=True)
    corpus = flags.out / "corpus"
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir()
    for number, data in enumerate(seeds()):
        (corpus / f"{number:05}").write_bytes(data)
    options = [
        f"-max_total_time={flags.seconds}",
        f"-seed={flags.seed + 1}",
        f"-artifact_prefix={flags.out}/",
        "-rss_limit_mb=2048",
        "-timeout=10",
        "-print_final_stats=1",
    ]
    inputs = [str(flags.input)] if flags.input else [str(corpus)]
    atheris.Setup([sys.argv[0], *options, *inputs], try_input)
    atheris.Fuzz()


def _memory() -> Path | None:
    """A folder in memory, where there is one."""
    shared = Path("/dev/shm")
    return shared if shared.is_dir() else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzzing.guided",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reader", metavar="READER")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", type=Path, help="read this input alone")
    parser.add_argument(
        "--out", type=Path, default=Path("runs", "benchmarks", "guided")
    )
    return parser


if __name__ == "__main__":
    main()
