"""From the sharded global graph to one local graph per accelerator."""
