"""An ONNX graph under construction.

Our maps are `[N, H, W, C]` and ONNX's convolutions take `[N, C, H, W]`. A value of rank
4 is held in one of both layouts, or in both: rules ask for the one that they need, and
a transposition is written when it is first asked for. Chains of convolutions, pools and
elementwise operations so stay in ONNX's layout.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cnn_flax.export.errors import ExportError

__all__ = ["FIRST", "LAST", "Graph", "Layout", "Value", "axis_in"]

Layout = Literal["channels last", "channels first"]
LAST: Layout = "channels last"
FIRST: Layout = "channels first"

_OPSET, _IR_VERSION = 18, 9  # Those of ONNX 1.14, of 2023.
_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_TYPES = {
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


@dataclasses.dataclass(eq=False)
class Value:
    """An array of the traced program.

    Attributes:
      shape: its shape in the program; dimensions may be symbolic.
      dtype: its dtype.
      constant: the array where it is known, or None.
      names: the tensors of the graph that hold it, by layout; arrays of a rank other
        than 4 have one layout alone.
    """

    shape: tuple[Any, ...]
    dtype: np.dtype
    constant: np.ndarray | None = None
    names: dict[Layout, str] = dataclasses.field(default_factory=dict)

    @property
    def is_first(self) -> bool:
        """Whether it is held with its channels first alone."""
        return LAST not in self.names and FIRST in self.names


def axis_in(layout: Layout, axis: int, rank: int) -> int:
    """Where an axis of the program is in a layout."""
    if layout == FIRST and rank == 4:
        return _TO_FIRST.index(axis)
    return axis


class Graph:
    """Nodes, constants and inputs of a model."""

    def __init__(self):
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[tuple[Any, ...], onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._dimensions: dict[str, tuple[str, int]] = {}
        self._shapes: dict[str, str] = {}
        self._count = 0

    # Values.

    def input(self, name: str, shape: Sequence[Any], dtype: Any) -> Value:
        """Adds an input; its symbolic dimensions are those that the graph knows."""
        for axis, size in enumerate(shape):
            if not isinstance(size, int):
                self._dimensions[str(size)] = (name, axis)
        dims = [size if isinstance(size, int) else str(size) for size in shape]
        info = helper.make_tensor_value_info(name, tensor_type(dtype), dims)
        self._inputs.append(info)
        return Value(tuple(shape), np.dtype(dtype), names={LAST: name})

    def constant(self, array: Any) -> Value:
        """A value that is known; it is written when a node asks for its name."""
        array = np.asarray(array)
        return Value(array.shape, array.dtype, array)

    def name(self, value: Value, layout: Layout = LAST) -> str:
        """The tensor that holds a value, in a layout.

        Arrays of a rank other than 4 have one layout, whatever is asked for.
        """
        if len(value.shape) != 4:
            layout = LAST
        if layout not in value.names:
            if value.constant is not None:
                array = value.constant
                if layout == FIRST:
                    array = array.transpose(_TO_FIRST)
                value.names[layout] = self.initializer(array)
            else:
                (held,) = value.names.values()
                permutation = _TO_FIRST if layout == FIRST else _TO_LAST
                value.names[layout] = self.node("Transpose", held, perm=permutation)
        return value.names[layout]

    def value(self, name: str, of: Any, layout: Layout = LAST) -> Value:
        """The value that a tensor holds.

        Args:
          name: the tensor.
          of: the variable's type in the traced program.
          layout: the tensor's.
        """
        shape = tuple(of.shape)
        if len(shape) != 4:
            layout = LAST
        return Value(shape, np.dtype(of.dtype), names={layout: name})

    # What the graph holds.

    def initializer(self, array: np.ndarray) -> str:
        """The tensor of a constant; equal small ones are one."""
        array = np.asarray(array, order="C")
        tensor_type(array.dtype)
        key: tuple[Any, ...] = (len(self._initializers),)
        if array.size <= 1024:
            key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._initializers:
            name = f"constant{len(self._initializers)}"
            self._initializers[key] = numpy_helper.from_array(array, name)
        return self._initializers[key].name

    def integers(self, values: Sequence[Any]) -> str:
        """A constant vector of int64, as shapes and axes are given."""
        return self.initializer(np.asarray([int(x) for x in values], np.int64))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        return self.nodes(operator, *inputs, outputs=1, **attributes)[0]

    def nodes(
        self, operator: str, *inputs: str, outputs: int, **attributes: Any
    ) -> list[str]:
        """Adds a node; returns the names of its outputs."""
        self._count += 1
        names = [f"{operator.lower()}{self._count}"]
        if outputs > 1:
            names = [f"{names[0]}_{i}" for i in range(outputs)]
        attributes = {
            k: list(v) if isinstance(v, tuple) else v for k, v in attributes.items()
        }
        self._nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    # Symbolic dimensions.

    def dimension(self, size: Any) -> str:
        """A vector of one int64 that holds a dimension."""
        if isinstance(size, int | np.integer):
            return self.integers([size])
        if str(size) not in self._dimensions:
            raise ExportError(f"ONNX: a dimension is {size}, which is not supported.")
        if str(size) not in self._shapes:
            name, axis = self._dimensions[str(size)]
            shape = self.node("Shape", name, start=axis, end=axis + 1)
            self._shapes[str(size)] = shape
        return self._shapes[str(size)]

    def shape(self, sizes: Sequence[Any]) -> str:
        """A vector of int64 that holds a shape."""
        if all(isinstance(size, int | np.integer) for size in sizes):
            return self.integers(sizes)
        key = str(tuple(map(str, sizes)))
        if key not in self._shapes:
            names = map(self.dimension, sizes)
            self._shapes[key] = self.node("Concat", *names, axis=0)
        return self._shapes[key]

    # The model.

    def model(
        self, output: Value, name: str, metadata: Mapping[str, str]
    ) -> onnx.ModelProto:
        """The model whose output is a value.

        Args:
          output: the value.
          name: what the output is called.
          metadata: texts by name, for the model's own properties.
        """
        self._nodes.append(helper.make_node("Identity", [self.name(output)], [name]))
        dims = [size if isinstance(size, int) else str(size) for size in output.shape]
        graph = helper.make_graph(
            self._nodes,
            "cnn_flax",
            self._inputs,
            [helper.make_tensor_value_info(name, tensor_type(output.dtype), dims)],
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="cnn_flax",
            ir_version=_IR_VERSION,
            opset_imports=[helper.make_opsetid("", _OPSET)],
        )
        helper.set_model_props(model, dict(metadata))
        return model


def tensor_type(dtype: Any) -> int:
    """ONNX's number of a dtype.

    Raises:
      ExportError: if the graph cannot have it.
    """
    name = np.dtype(dtype).name
    if name not in _TYPES:
        raise ExportError(
            f"ONNX: arrays of {name} are not supported; export a float32 model."
        )
    return _TYPES[name]
