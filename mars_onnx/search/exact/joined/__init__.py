"""Branches on sets of their own, side by side, until one layer takes them all."""
