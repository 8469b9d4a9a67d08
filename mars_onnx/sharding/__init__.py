"""Strategies and mappings, and what they mean for a node: shares, needed boxes, layouts, rings."""
