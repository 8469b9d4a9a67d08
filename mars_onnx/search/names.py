"""Names and titles of the search methods, for ``--help``: nothing is imported here, so that it comes at once."""

from __future__ import annotations

#: Per name what the method is, in a few words. The registry takes its titles from here; a test says that none is left.
TITLES: dict[str, str] = {
    "exact": "the optimum of a stated space, with a proof",
    "ilp": "the optimum of small problems, by an integer program of the whole that HiGHS solves",
    "greedy": "layer by layer the cheapest strategy, given those before it",
    "baseline": "the computation-prioritised baseline of MARS (DAC 2023)",
    "genetic": "the two-level genetic algorithm of MARS (DAC 2023)",
    "h2h": "the four steps of H2H (DAC 2022): whole layers on single accelerators",
    "h2h-fixed": "the same as published: designs are given, all in turn, and no start is added",
    "uniform": "the best uniform strategy: the same split for every layer",
    "single": "the best single accelerator in its best design",
}

#: What chooses the mapping where nobody says anything.
DEFAULT = "exact"
#: Units of work that it has where nobody says anything: about a minute, and the same on every machine.
DEFAULT_WORK_LIMIT = 60.0
#: In place of names of methods to compare with: every one that takes problems of any size.
ALL = "all"
