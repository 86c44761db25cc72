"""What a compiled step costs: its memory, operations, traffic and collectives."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from train.run.topology import Chip

__all__ = ["Collective", "Cost", "Roofline", "collectives", "cost_of", "roofline"]

# Bytes that a chip sends over its links per byte of its result, in a ring of n chips.
_SENT = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1.0,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1.0,
}
_COLLECTIVE = re.compile(
    rf"= (?P<result>\(.*?\)|\S+) (?P<kind>{'|'.join(_SENT)})(?P<start>-start)?\("
)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .*\{$")
_ARRAY = re.compile(r"\b(?P<dtype>[a-z]\w*?)\[(?P<shape>[\d,]*)\]")
_CALLED = re.compile(
    r"(?P<how>body|calls|to_apply|(?:true|false)_computation)=%(?P<one>[\w.\-]+)"
    r"|(?:calls|branch_computations)=\{(?P<many>[^}]*)\}"
)
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True)
class Collective:
    """All collectives of one kind in a step.

    Attributes:
      kind: such as `all-reduce`.
      count: how often a step runs one.
      bytes: size of their results on a chip, in all.
    """

    kind: str
    count: int
    bytes: int


@dataclass(frozen=True)
class Cost:
    """The cost of a step for each chip, as the compiler counts it.

    Attributes:
      arguments: bytes of the state and the batch.
      results: bytes of the outputs that are not aliased with the donated state.
      temporaries: bytes of everything in between.
      code: bytes of the program itself.
      flops: operations.
      traffic: bytes read from and written to the chip's memory.
      collectives: what the chips exchange.
    """

    arguments: int
    results: int
    temporaries: int
    code: int
    flops: float
    traffic: float
    collectives: tuple[Collective, ...]

    @property
    def memory(self) -> int:
        """Bytes that the step needs at once."""
        return self.arguments + self.results + self.temporaries + self.code


@dataclass(frozen=True)
class Roofline:
    """The shortest time of a step, if everything overlaps and nothing waits.

    Attributes:
      compute: seconds for the operations, at the chip's peak.
      memory: seconds for the traffic with its memory.
      links: seconds for what it sends to other chips.
    """

    compute: float
    memory: float
    links: float

    @property
    def seconds(self) -> float:
        """Seconds of the step."""
        return max(self.compute, self.memory, self.links)

    @property
    def binds(self) -> str:
        """What takes longest: `compute`, `memory` or `links`."""
        return max(("compute", "memory", "links"), key=lambda name: getattr(self, name))


def cost_of(compiled: Any, parts: int = 1) -> Cost:
    """The cost of a compiled step.

    Args:
      compiled: what `jax.stages.Lowered.compile` returns.
      parts: number of parts that the step processes its batch in, one after the other.
        The compiler counts the operations and the traffic of a loop once; they are
        multiplied by this, which counts the update of the weights too often.
    """
    memory, counts = compiled.memory_analysis(), compiled.cost_analysis()
    return Cost(
        arguments=memory.argument_size_in_bytes,
        results=memory.output_size_in_bytes - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=parts * counts.get("flops", 0.0),
        traffic=parts * counts.get("bytes accessed", 0.0),
        collectives=collectives(compiled.as_text(), parts),
    )


def roofline(cost: Cost, chip: Chip, chips: int) -> Roofline:
    """The roofline of a step.

    Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance
    model for multicore architectures", with the links between chips as a third roof. A
    reduction over n chips sends 2 (n - 1) / n of its bytes. Each collective counts as
    one over all chips; with a mesh of two axes, some are over fewer, and send less.
    """
    sent = sum(c.bytes * _SENT[c.kind](chips) for c in cost.collectives)
    return Roofline(
        cost.flops / chip.flops,
        cost.traffic / chip.memory_rate,
        sent / chip.link_rate,
    )


def collectives(hlo: str, trips: int = 1) -> tuple[Collective, ...]:
    """The collectives in the text of a compiled program, by kind.

    Args:
      hlo: the text.
      trips: how often a loop runs of which the text does not say so.
    """
    lines = _lines_by_computation(hlo)
    callers = _callers(lines, trips)
    totals: dict[str, tuple[int, int]] = {}
    for name, kind, size in _found(lines):
        times = _runs(name, callers)
        count, total = totals.get(kind, (0, 0))
        totals[kind] = count + times, total + times * size
    return tuple(Collective(kind, *totals[kind]) for kind in sorted(totals))


def _lines_by_computation(hlo: str) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    name = ""
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            name = header["name"]
        lines.setdefault(name, []).append(line)
    return lines


def _found(lines: dict[str, list[str]]) -> Iterator[tuple[str, str, int]]:
    """Computation, kind and size in bytes of each collective."""
    for name, body in lines.items():
        for line in body:
            if match := _COLLECTIVE.search(line):
                yield name, match["kind"], _size(match)


def _size(match: re.Match[str]) -> int:
    """Bytes of the result."""
    arrays = [
        (array["dtype"], [int(side) for side in array["shape"].split(",") if side])
        for array in _ARRAY.finditer(match["result"])
    ]
    if match["start"] and match["kind"] != "all-reduce":
        # An asynchronous one returns its operands, its results and scalar counters.
        arrays = [(dtype, shape) for dtype, shape in arrays if shape]
        arrays = arrays[len(arrays) // 2 :]
    return sum(_bits(dtype) * math.prod(shape) for dtype, shape in arrays) // 8


def _bits(dtype: str) -> int:
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 8  # pred


def _callers(
    lines: dict[str, list[str]], unknown_trips: int
) -> dict[str, list[tuple[str, int]]]:
    """The computations that call each computation, and how often one run does."""
    callers: dict[str, list[tuple[str, int]]] = {}
    for name, body in lines.items():
        for line in body:
            trips = _TRIPS.search(line)
            loop = int(trips[1]) if trips else unknown_trips
            for called in _CALLED.finditer(line):
                times = loop if called["how"] == "body" else 1
                for target in (called["one"] or called["many"]).split(","):
                    target = target.strip().lstrip("%")
                    callers.setdefault(target, []).append((name, times))
    return callers


def _runs(name: str, callers: dict[str, list[tuple[str, int]]]) -> int:
    """How often a step runs a computation."""
    if name not in callers:
        return 1
    return sum(times * _runs(caller, callers) for caller, times in callers[name])
