"""The two-level genetic algorithm of MARS (DAC 2023): sets, designs and layers above; strategies of layers below."""

from mars_onnx.search.comparators.genetic.method import genetic

__all__ = ["genetic"]
