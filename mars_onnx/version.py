"""Version of mars_onnx, as it stands in every file that it writes."""

__version__ = "0.1.0"
