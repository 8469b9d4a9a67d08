"""Choosing a mapping: the problem as data, and the methods that solve it."""
