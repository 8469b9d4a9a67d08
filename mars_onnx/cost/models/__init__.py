"""The performance models that mars_onnx ships. Formulas, sources and measured errors: docs/cost-model.md."""
