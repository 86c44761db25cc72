"""Prefetching: copies batches to the device while it computes."""

import queue
import threading
from collections.abc import Generator, Iterator, Mapping
from functools import partial
from typing import Any

import jax

__all__ = ["prefetch_to_device"]

_POLL = 0.1  # seconds


def prefetch_to_device(
    iterator: Iterator[Mapping[str, Any]],
    sharding: Any = None,
    size: int = 2,
) -> Generator[dict[str, Any], None, None]:
    """Copies batches to the device in a background thread, up to `size` ahead.

    Args:
      iterator: batches on the host: trees of this process's rows.
      sharding: a device, or a sharding of the first axis over the devices of all
        processes; None for the default device.
      size: number of batches waiting on the device.

    Yields:
      The same batches, as arrays on the device. Closing the generator stops the thread
      and closes the iterator. An exception of the iterator is raised here, after the
      batches before it.
    """
    if size < 1:
        raise ValueError(f"size {size} must be at least 1")
    return _prefetch(iterator, sharding, size)


def _prefetch(iterator, sharding, size) -> Generator[dict[str, Any], None, None]:
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(size)
    stopped = threading.Event()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=_POLL)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in iterator:
                put((_to_device(batch, sharding), None))
                if stopped.is_set():
                    return
            put((None, None))
        except BaseException as error:  # Raised again in the consumer's thread.
            put((None, error))

    thread = threading.Thread(target=work, name="prefetch_to_device", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            if batch is None:
                return
            yield batch
    finally:
        stopped.set()
        thread.join()
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _to_device(batch: Mapping[str, Any], sharding: Any) -> dict[str, Any]:
    if isinstance(sharding, jax.sharding.Sharding):
        to_device = partial(jax.make_array_from_process_local_data, sharding)
        return jax.tree.map(to_device, dict(batch))
    return jax.device_put(dict(batch), sharding)
