"""How large the populations of the genetic algorithm are, and how often it does what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes and rates; docs/comparators.md says which were compared.

    Attributes:
        structures: Individuals of the first level: sets, designs, layers of each set.
        rounds: Generations of the first level.
        born: New individuals in each of them.
        strategies: Individuals of the second level: strategies of all layers.
        children: New ones in each generation of the second level.
        trial: Generations of the second level for a new individual of the first.
        final: Generations of the second level for the best individuals of the first, at the end.
        finalists: How many those are.
        bias: How much faster designs and strategies are preferred at random: chances are times to minus this power.
        patience: The final generations end after so many without any gain.
    """

    structures: int = 8
    rounds: int = 6
    born: int = 4
    strategies: int = 24
    children: int = 48
    trial: int = 6
    final: int = 300
    finalists: int = 1
    bias: float = 3.0
    patience: int = 80
