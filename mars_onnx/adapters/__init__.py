"""Bridges to other libraries' representations of a model, imported only when used."""
