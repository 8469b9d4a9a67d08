"""mars_onnx: partition an ONNX model over a pool of accelerators."""
