"""The passes of mars_onnx, registered through the same entry points as a third party's would be."""
