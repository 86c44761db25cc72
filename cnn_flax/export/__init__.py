"""Models as programs for other runtimes: StableHLO and ONNX."""

from cnn_flax.export.errors import ExportError
from cnn_flax.export.function import inference_function
from cnn_flax.export.onnx_model import to_onnx
from cnn_flax.export.stablehlo import to_stablehlo

__all__ = ["ExportError", "inference_function", "to_onnx", "to_stablehlo"]
