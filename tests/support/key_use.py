"""Finds keys that a traced program uses twice: nothing is computed.

JAX has a checker, `jax.debug_key_reuse`, which takes a transposed array of keys for a
used one and folds of equal numbers for different keys; every step here has both.
"""

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.extend import core

from cnn_flax.analysis.jaxpr import scan_counts

# A key that one of these takes must not be used again.
_USES = ("random_bits", "random_split", "random_gamma", "random_unwrap")
_LOOPS = ("scan", "while")


def uses_of_keys(function: Any, *arguments: Any) -> "Uses":
    """The uses of keys in a function of abstract arguments.

    Equal values are the same value: what two equal operations make of equal inputs.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    uses = Uses()
    inputs = [uses.new({("input", i)}) for i in range(len(closed.in_avals))]
    uses.run(closed.jaxpr, closed.consts, inputs, ())
    return uses


class Uses:
    """What a program does with its keys.

    Attributes:
      seen: from each key that was used to what used it: primitives, with the loops
        around them.
    """

    def __init__(self) -> None:
        self.seen: dict[int, list[str]] = {}
        self._numbers: dict[Any, int] = {}
        self._origins: list[frozenset[Any]] = []
        self._loops = itertools.count()
        self._parent: dict[int, int] = {}

    @property
    def reused(self) -> list[str]:
        """What used each key that was used more than once."""
        found = [" and ".join(users) for users in self.seen.values() if len(users) > 1]
        for value in self.seen:
            whole = self._parent.get(value)
            while whole is not None:
                if whole in self.seen:
                    found.append(
                        f"{self.seen[value][0]} of a part, and {self.seen[whole][0]}"
                    )
                whole = self._parent.get(whole)
        return found

    def origins(self) -> list[frozenset[int]]:
        """For each key that was used, the numbers of the arguments it depends on."""
        return [
            frozenset(n for kind, n in self._origins[key] if kind == "input")
            for key in self.seen
        ]

    def new(self, origins: Iterable[Any] = ()) -> int:
        """A value unlike all others."""
        self._origins.append(frozenset(origins))
        return len(self._origins) - 1

    def _known(self, description: Any, inputs: Iterable[int]) -> int:
        if description not in self._numbers:
            origins = frozenset().union(*(self._origins[i] for i in inputs))
            self._numbers[description] = self.new(origins)
        return self._numbers[description]

    def run(
        self, jaxpr: Any, consts: Any, inputs: list[int], loops: tuple
    ) -> list[int]:
        """Follows a program; returns the values of its results."""
        values = dict(zip(jaxpr.invars, inputs, strict=True))
        for variable, const in zip(jaxpr.constvars, consts, strict=True):
            values[variable] = self._constant(const)

        def read(x: Any) -> int:
            is_literal = isinstance(x, core.Literal)
            return self._constant(x.val) if is_literal else values[x]

        for equation in jaxpr.eqns:
            arguments = [read(x) for x in equation.invars]
            results = self._equation(equation, arguments, loops)
            values.update(zip(equation.outvars, results, strict=True))
        return [read(x) for x in jaxpr.outvars]

    def _constant(self, value: Any) -> int:
        if isinstance(value, jax.Array) and _is_key(value):
            value = jax.random.key_data(value)
        array = np.asarray(value)
        return self._known(
            ("constant", array.dtype.str, array.shape, array.tobytes()), ()
        )

    def _equation(self, equation: Any, arguments: list[int], loops: tuple) -> list[int]:
        name, params = equation.primitive.name, equation.params
        if name == "cond":
            return self._branches(params["branches"], arguments, loops)
        if name in _LOOPS:
            return self._loop(equation, arguments, loops)
        inner = [
            x
            for x in params.values()
            if _is_program(x)
            and len(getattr(x, "jaxpr", x).invars) == len(arguments)
            and len(getattr(x, "jaxpr", x).outvars) == len(equation.outvars)
        ]
        if params.get("differentiated"):  # What was computed before, once more.
            return [self.new(self._all(arguments)) for _ in equation.outvars]
        if inner:
            program = inner[0]
            consts = getattr(program, "consts", ())
            program = getattr(program, "jaxpr", program)
            return self.run(program, consts, arguments, loops)
        if name in _USES and _is_key(equation.invars[0].aval):
            self._use(arguments[0], name, loops)
        shown = tuple(sorted((k, repr(v)) for k, v in params.items()))
        results = [
            self._known((name, shown, tuple(arguments), i), arguments)
            for i in range(len(equation.outvars))
        ]
        keys = [
            a
            for a, x in zip(arguments, equation.invars, strict=True)
            if _is_key(x.aval)
        ]
        if keys and not name.startswith("random_"):  # Another view of the same keys.
            for result, variable in zip(results, equation.outvars, strict=True):
                if _is_key(variable.aval):
                    self._parent.setdefault(result, keys[0])
        return results

    def _use(self, key: int, name: str, loops: tuple) -> None:
        users = self.seen.setdefault(key, [])
        users.append(name)
        if any(loop not in self._origins[key] for loop in loops):
            users.append(f"{name} in the next turn of a loop")

    def _branches(self, branches: Any, arguments: list[int], loops: tuple) -> list[int]:
        """One branch is taken: a key may be used once in each."""
        before = {key: list(users) for key, users in self.seen.items()}
        after: dict[int, list[str]] = dict(before)
        results = []
        for branch in branches:
            self.seen = {key: list(users) for key, users in before.items()}
            results = self.run(branch.jaxpr, branch.consts, arguments[1:], loops)
            for key, users in self.seen.items():
                after[key] = max(after.get(key, []), users, key=len)
        self.seen = after
        return [self.new(self._all(arguments)) for _ in results]

    def _loop(self, equation: Any, arguments: list[int], loops: tuple) -> list[int]:
        """A loop's body, once: what does not change with the turn must not be used."""
        params = equation.params
        loop = ("loop", next(self._loops))
        if equation.primitive.name == "scan":
            body, (fixed, _) = params["jaxpr"], scan_counts(equation)
            once = params["length"] == 1
        else:
            body, once = params["body_jaxpr"], False
            skipped = params["cond_nconsts"]
            arguments, fixed = arguments[skipped:], params["body_nconsts"]
        changing = [self.new({*self._all([a]), loop}) for a in arguments[fixed:]]
        inner = loops if once else (*loops, loop)
        self.run(body.jaxpr, body.consts, arguments[:fixed] + changing, inner)
        return [self.new(self._all(arguments)) for _ in equation.outvars]

    def _all(self, values: list[int]) -> frozenset[Any]:
        return frozenset().union(*(self._origins[v] for v in values))


def _is_key(x: Any) -> bool:
    return jax.dtypes.issubdtype(getattr(x, "dtype", None), jax.dtypes.prng_key)


def _is_program(x: Any) -> bool:
    return isinstance(x, core.ClosedJaxpr | core.Jaxpr)
