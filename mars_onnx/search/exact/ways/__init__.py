"""Ways through several sets: which there are, what is left at least, the best one, and its mapping."""
