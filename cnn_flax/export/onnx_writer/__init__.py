"""From traced programs to ONNX graphs, one rule per primitive of JAX."""
