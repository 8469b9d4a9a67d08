"""Names and titles of the search methods, for ``--help``: nothing is imported here, so that it comes at once."""

from __future__ import annotations

#: Per name what the method is, in a few words; a test holds this against the registry.
TITLES: dict[str, str] = {
    "greedy": "layer by layer the cheapest strategy, given those before it",
}

#: What chooses the mapping where nobody says anything.
DEFAULT = "greedy"
#: In place of names of methods to compare with: every one of them.
ALL = "all"
