"""Pseudo-labels by the shard on Ray Data: one teacher per actor of a pool.

    pip install -e '.[train]' 'ray[data]'
    python examples/label_with_ray.py runs/teacher 'shards:/data/*.tar' /data/labels

The files are those of `python -m train pseudo-label`.
"""

import argparse
from pathlib import Path
from typing import Any

import ray

from train.data.shards import list_shards
from train.run.shard_labelling import ShardLabeller


class Label:
    """Labels the shards that its actor is given."""

    def __init__(self, run: str, out: str) -> None:
        self._labeller = ShardLabeller(Path(run), Path(out))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Adds the number of images that were labelled to a shard's row."""
        return {**row, "images": self._labeller(Path(row["path"]), row["name"])}


def main() -> None:
    """Labels the shards, with a GPU for each worker where there are GPUs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of the teacher's run")
    parser.add_argument("shards", help="such as 'shards:/data/*.tar'")
    parser.add_argument("out", help="folder of the labels, which all workers see")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=0, help="of each worker")
    flags = parser.parse_args()

    shards = list_shards(flags.shards)
    paths = {name: str(shards.path(name).resolve()) for name in shards.names}
    rows = [{"name": name, "path": path} for name, path in paths.items()]
    labelled = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Label,
        fn_constructor_args=(
            str(Path(flags.run).resolve()),
            str(Path(flags.out).resolve()),
        ),
        compute=ray.data.ActorPoolStrategy(size=flags.workers),
        num_gpus=flags.gpus,
    )
    print(f"{labelled.sum('images'):,} images of {len(rows):,} shards")


if __name__ == "__main__":
    main()
