"""Comparisons with published numbers and with other tools."""
