"""Pseudo-labels by the shard: one file of labels for each file of images.

A worker needs no other worker, and keeps no state but the label shards: it labels those
of its shards that have none. `train.data.label_shards` describes the files.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from train.data import BadImages, Source, eval_batches, prefetch_to_device
from train.data.label_shards import (
    LabelShard,
    check_label_shard,
    label_path,
    open_folder,
    read_label_header,
    write_label_shard,
)
from train.data.shard_readers import open_shard
from train.data.shards import Shards, image_keys, shard_digest, source_of
from train.errors import UserError
from train.learn.parallel import Placement, jit_step
from train.learn.step import make_predict_step
from train.run.labelling import batch_options, describe_teacher, one_behind
from train.run.load import load_run
from train.run.record import pixel_inputs, require_one_class, run_step_identity

__all__ = ["ShardLabeller", "label_shards"]

_LEAST = float(np.finfo(np.float16).min)
_NAMED = 5  # Shards named in a message.
# Unreadable images that even a small shard may have, up to a quarter of it.
_FEW = 8


class ShardLabeller:
    """Labels one shard at a time with a run's last checkpoint, on all devices.

    An engine such as Ray Data or Apache Beam makes one per worker and calls it with the
    shards that it hands out.

    Args:
      run: the run's folder.
      out: the folder of the labels, which all workers share; created if needed.
      top: number of most probable classes k to keep of each image; at most K.
      batch_size: images per step; None for the run's.
      ema: whether to use the moving average of the weights.
      threads: number of threads that read images; None for the run's.
      say: prints one line per unreadable image.

    Raises:
      UserError: if the folder holds no run, `out` has labels by another teacher, or the
        classes do not fit into uint16.
    """

    def __init__(
        self,
        run: Path,
        out: Path,
        *,
        top: int = 8,
        batch_size: int | None = None,
        ema: bool = False,
        threads: int | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        loaded = load_run(run, ema=ema)
        require_one_class(run, loaded.record)
        record, config, model, variables, _ = loaded
        classes = len(record["class_names"])
        if classes > 2**16:
            raise UserError(f"{run} has {classes:,} classes; label shards hold 65,536.")
        if top < 1:
            raise UserError(f"--top must be at least 1, got {top}.")
        self._run, self._out, self._say = run, out, say
        self._header = open_folder(
            out,
            {**describe_teacher(run, loaded, ema), "top": min(top, classes)},
        )
        self._max_bad_share = config.input.max_bad_share
        self._placement = Placement()
        self._batches = batch_options(
            record, config, self._placement, batch_size, threads
        )
        predict = make_predict_step(model, pixel_inputs(record))
        self._variables = jax.device_put(variables, self._placement.replicated)
        count = self._header["top"]
        self._teacher = jit_step(
            _top_classes(predict, count), run_step_identity("top", record, count=count)
        )

    def is_labelled(self, shard: Path, name: str) -> bool:
        """Whether a shard's labels exist.

        Raises:
          UserError: if they are damaged, by another teacher, or of another shard.
        """
        path = label_path(self._out, name)
        if not path.exists():
            return False
        expected = {**self._header, "digest": shard_digest(shard)}
        check_label_shard(path, read_label_header(path), expected, shard)
        return True

    def __call__(self, shard: Path, name: str) -> int:
        """Labels a shard, unless its labels exist.

        Args:
          shard: the shard.
          name: its name: the labels' path below the folder is `NAME.npz`.

        Returns:
          The number of images that were labelled: 0 if there was nothing to do.

        Raises:
          UserError: if the shard cannot be read, its labels are those of another shard
            or teacher, or the teacher's logits are not finite.
          BadImagesError: if more of the shard's images cannot be read than the run's
            `max_bad_share` allows; unless that is 0, eight of them may be.
          StorageError: if the disk is full; the labels of other shards are safe.
        """
        if self.is_labelled(shard, name):
            return 0
        digest = shard_digest(shard)
        reader = open_shard(shard)
        source = source_of(shard, reader)
        keys = image_keys(reader.names)
        few = min(_FEW / len(source), 0.25) if self._max_bad_share else 0
        max_share = max(self._max_bad_share, few)
        bad = BadImages(len(source), max_share=max_share, say=self._say)
        classes, log_probs, readable = self._label(source, bad)
        if not np.isfinite(log_probs[:, readable]).all():
            raise UserError(
                f"{self._run} cannot label images: its logits are not finite."
            )
        log_probs[:, ~readable], classes[:, ~readable] = np.nan, 0
        if shard_digest(shard) != digest:
            raise UserError(f"{shard} was written to while it was being labelled.")
        found = bad.found
        unreadable = {i: source.name(i) for i in np.flatnonzero(~readable).tolist()}
        header = {
            "shard": name,
            "digest": digest,
            "images": len(source),
            "teacher": self._header["teacher"],
            "top": self._header["top"],
            "classes": len(self._header["class_names"]),
            "unreadable": {i: [n, found.get(n, "")] for i, n in unreadable.items()},
        }
        write_label_shard(
            label_path(self._out, name), LabelShard(keys, classes, log_probs, header)
        )
        return len(source)

    def _label(
        self, source: Source, bad: BadImages
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Classes and log probabilities `[k, n]`; which are readable, `[n]`."""
        shape = (self._header["top"], len(source))
        classes, log_probs = np.zeros(shape, np.uint16), np.zeros(shape, np.float16)
        readable = np.zeros(len(source), bool)
        batches = eval_batches(source, bad_images=bad, **self._batches)
        sharding = self._placement.sharded
        with contextlib.closing(prefetch_to_device(batches, sharding)) as ready:
            for found, index, mask in one_behind(self._predictions(ready)):
                is_image = index < len(source)
                rows = index[is_image]
                classes[:, rows] = found[0][is_image].T
                log_probs[:, rows] = found[1][is_image].T
                readable[rows] = mask[is_image] > 0
        return classes, log_probs, readable

    def _predictions(self, batches: Any) -> Iterator[Any]:
        for batch in batches:
            found = self._teacher(self._variables, batch["image"])
            yield found, batch["index"], batch["mask"]


def label_shards(
    labeller: ShardLabeller, shards: Shards, say: Callable[[str], None] = print
) -> None:
    """Labels a worker's shards in order, and skips those that have labels.

    A shard that cannot be labelled does not keep the others from it.

    Args:
      labeller: the teacher.
      shards: the worker's share of the shards.
      say: prints lines of progress.

    Raises:
      UserError: at the end, if shards could not be labelled.
      StorageError: if the disk is full; the labels so far are safe.
    """
    failed: list[str] = []
    skipped = images = 0
    started = time.monotonic()
    for i, name in enumerate(shards.names, 1):
        try:
            count = labeller(shards.path(name), name)
        except UserError as error:
            failed.append(str(error))
            say(f"left out: {error}")
            continue
        images += count
        skipped += not count
        if count:
            rate = images / (time.monotonic() - started)
            say(
                f"{name}: {count:,} images; {i:,} of {len(shards):,} shards, "
                f"{rate:,.0f} images per second."
            )
    if skipped:
        say(f"{skipped:,} of {len(shards):,} shards were labelled already.")
    if failed:
        more = "\n  ..." if len(failed) > _NAMED else ""
        lines = "".join(f"\n  {reason}" for reason in failed[:_NAMED])
        raise UserError(
            f"{len(failed):,} of {len(shards):,} shards could not be labelled:{lines}"
            f"{more}\nThe labels of the others are complete; the same command labels "
            "what is missing."
        )


def _top_classes(predict: Callable[..., jax.Array], top: int) -> Callable[..., Any]:
    """The most probable classes uint16 `[N, k]`, and log probabilities float16."""

    def top_classes(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_probs, classes = jax.lax.top_k(predict(variables, images), top)
        # A class may be less probable than the smallest float16.
        log_probs = jnp.where(log_probs < _LEAST, _LEAST, log_probs)
        return classes.astype(jnp.uint16), log_probs.astype(jnp.float16)

    return top_classes
