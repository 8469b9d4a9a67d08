"""Running partitions: segments, transports, execution, and the comparison with the original."""
