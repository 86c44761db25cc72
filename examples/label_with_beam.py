"""Pseudo-labels by the shard on Apache Beam: one teacher per worker.

    pip install -e '.[train]' apache-beam
    python examples/label_with_beam.py runs/teacher 'shards:/data/*.tar' /data/labels

Flags of Beam's, such as --runner, follow. The files are those of
`python -m train pseudo-label`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from train.data.shards import list_shards
from train.run.shard_labelling import ShardLabeller


class Label(beam.DoFn):
    """Labels the shards that its worker is given."""

    def __init__(self, run: Path, out: Path) -> None:
        self._run, self._out = run, out

    def setup(self) -> None:
        """Loads the teacher, once per worker."""
        self._labeller = ShardLabeller(self._run, self._out)

    def process(self, shard: tuple[str, Path]) -> Iterator[str]:
        """Yields the shard's name and the number of images that were labelled."""
        name, path = shard
        yield f"{name}: {self._labeller(path, name):,} images"


def main() -> None:
    """Labels the shards."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of the teacher's run")
    parser.add_argument("shards", help="such as 'shards:/data/*.tar'")
    parser.add_argument("out", help="folder of the labels, which all workers see")
    flags, others = parser.parse_known_args()

    shards = list_shards(flags.shards)
    rows = [(name, shards.path(name).resolve()) for name in shards.names]
    label = Label(Path(flags.run).resolve(), Path(flags.out).resolve())
    with beam.Pipeline(options=PipelineOptions(others)) as pipeline:
        _ = (
            pipeline
            | beam.Create(rows)
            | beam.Reshuffle()  # Else one worker may get all shards.
            | beam.ParDo(label)
            | beam.Map(print)
        )


if __name__ == "__main__":
    main()
