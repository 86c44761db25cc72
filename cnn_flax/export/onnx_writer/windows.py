"""Convolutions and pools: windows that move over maps, with channels first."""

from typing import Any

from cnn_flax.export.errors import ExportError
from cnn_flax.export.onnx_writer.graph import FIRST, Graph, Value

__all__ = ["RULES"]

# Numbers of the axes of `[N, H, W, C]` maps and of `[kh, kw, C, features]` kernels.
_MAPS, _KERNEL = (0, 3, 1, 2), (3, 2, 0, 1)


def _convolution(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    parameters = equation.params
    numbers = parameters["dimension_numbers"]
    layouts = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
    if (
        layouts != (_MAPS, _KERNEL, _MAPS)
        or tuple(parameters["lhs_dilation"]) != (1, 1)
        or parameters["batch_group_count"] != 1
    ):
        raise ExportError("ONNX: a convolution other than of [N, H, W, C] maps.")
    x, kernel = inputs
    padding = parameters["padding"]
    if any(pixels < 0 for pair in padding for pixels in pair):
        raise ExportError("ONNX: a convolution with negative padding.")
    name = graph.node(
        "Conv",
        graph.name(x, FIRST),
        _permuted(graph, kernel, _KERNEL),
        strides=tuple(map(int, parameters["window_strides"])),
        dilations=tuple(map(int, parameters["rhs_dilation"])),
        pads=_pads(padding),
        group=int(parameters["feature_group_count"]),
        kernel_shape=tuple(map(int, kernel.shape[:2])),
    )
    return [graph.value(name, equation.outvars[0].aval, FIRST)]


def _permuted(graph: Graph, kernel: Value, order: tuple[int, ...]) -> str:
    if kernel.constant is not None:
        return graph.initializer(kernel.constant.transpose(order))
    return graph.node("Transpose", graph.name(kernel), perm=order)


def _pads(padding) -> tuple[int, ...]:
    """ONNX's order: all axes' first pixels, then all axes' last."""
    return tuple(int(pair[i]) for i in (0, 1) for pair in padding)


def _window(equation: Any) -> dict[str, Any]:
    """The attributes of a pool of `[N, H, W, C]` maps."""
    parameters = equation.params
    names = ("window_dimensions", "window_strides", "padding")
    window, strides, padding = (tuple(parameters[name]) for name in names)
    dilations = (*parameters["base_dilation"], *parameters["window_dilation"])
    if (
        len(window) != 4
        or (window[0], window[3]) != (1, 1)
        or any(n != 1 for n in (strides[0], strides[3], *dilations))
        or any(tuple(padding[axis]) != (0, 0) for axis in (0, 3))
    ):
        raise ExportError("ONNX: a pool other than over height and width.")
    return {
        "kernel_shape": tuple(map(int, window[1:3])),
        "strides": tuple(map(int, strides[1:3])),
        "pads": _pads(padding[1:3]),
    }


def _max_pool(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    name = graph.node("MaxPool", graph.name(inputs[0], FIRST), **_window(equation))
    return [graph.value(name, equation.outvars[0].aval, FIRST)]


def _sum_pool(graph: Graph, equation: Any, inputs: list[Value]) -> list[Value]:
    """The mean of the window with its padding, times its number of pixels."""
    window = _window(equation)
    mean = graph.node(
        "AveragePool", graph.name(inputs[0], FIRST), count_include_pad=1, **window
    )
    height, width = window["kernel_shape"]
    pixels = graph.constant(inputs[0].dtype.type(height * width))
    name = graph.node("Mul", mean, graph.name(pixels))
    return [graph.value(name, equation.outvars[0].aval, FIRST)]


RULES = {
    "conv_general_dilated": _convolution,
    "reduce_window_max": _max_pool,
    "reduce_window_sum": _sum_pool,
}
