"""Running a partition as fast as ONNX Runtime on this CPU can: lowered as a whole, in memory that ranks share."""
