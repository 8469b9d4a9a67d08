"""Global to local: one graph per accelerator, its weights as slices, and communication as explicit nodes."""
