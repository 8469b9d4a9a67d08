"""Measuring a machine: kernels of ONNX Runtime, memory, and what passes between ranks; and a pool file made of it."""
