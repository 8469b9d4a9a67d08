"""What it takes to move tensors: bounds for many pairs of layouts at once, and the exact cost of one."""
