"""Exact search: the best mapping of a stated space, with a proof."""
