"""What is written for people and for deployments: plan.json, report.json, annotated.onnx, the table on a terminal."""
