"""Partitions as MPI processes, one per accelerator. Importing this package imports no MPI."""
