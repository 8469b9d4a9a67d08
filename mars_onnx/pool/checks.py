"""What has to hold between the entries of a pool file: ids, links, designs, reachability.

These look at the plain JSON data and pass over what is malformed, so that a file with a typing mistake in one place
still gets its other mistakes named in the same message.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mars_onnx.pool.document import Document, Place, unknown
from mars_onnx.pool.format import MAX_LINKS, MAX_NAME_LENGTH, RESERVED

Node = tuple[Place, str]


def _entries(document: Document, key: str) -> Iterator[tuple[int, dict[str, object]]]:
    listed = document.data.get(key)
    if isinstance(listed, list):
        yield from ((index, entry) for index, entry in enumerate(listed) if isinstance(entry, dict))


def _ids(document: Document, *keys: str) -> list[Node]:
    return [
        ((key, index, "id"), str(entry["id"]))
        for key in keys
        for index, entry in _entries(document, key)
        if isinstance(entry.get("id"), str) and len(str(entry["id"])) <= MAX_NAME_LENGTH
    ]


def check_ids(document: Document) -> None:
    """Ids are unique whatever their case (they become file names), and no name that a file of ours has."""
    seen: dict[str, Place] = {}
    for place, name in _ids(document, "accelerators", "hosts", "switches"):
        first = seen.setdefault(name.lower(), place)
        if first != place:
            line = document.line(first)
            document.add(place, f"the id {name!r} is taken (line {line}; case does not count); every id is used once")
        if place[0] == "accelerators" and RESERVED.fullmatch(name):
            document.add(place, f"the id {name!r} is reserved, since a file is named after it; take another")


def check_links(document: Document) -> list[tuple[Place, str, str]]:
    """Every link joins two different known nodes, and no two links the same ones.

    Returns:
        The good ones.
    """
    known = tuple(name for _, name in _ids(document, "accelerators", "hosts", "switches"))
    names = set(known)
    good: list[tuple[Place, str, str]] = []
    seen: dict[frozenset[str], Place] = {}
    for index, entry in _entries(document, "links"):
        pairs = entry.get("between")
        for number, pair in enumerate(pairs if isinstance(pairs, list) else []):
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(end, str) for end in pair)):
                continue
            place: Place = ("links", index, "between", number)
            missing = [side for side in (0, 1) if pair[side] not in names]
            for side in missing:
                document.add((*place, side), partial(unknown, "node", pair[side], known))
            if missing:
                continue
            first = seen.setdefault(frozenset(pair), place)
            if pair[0] == pair[1]:
                document.add(place, f"links {pair[0]!r} with itself; a link is between two different nodes")
            elif first != place:
                line = document.line(first)
                document.add(place, f"{pair[0]!r} and {pair[1]!r} are linked already (line {line}); keep one link")
            else:
                good.append((place, pair[0], pair[1]))
    if len(good) > MAX_LINKS:
        document.add(("links",), f"{len(good)} links are too many; {MAX_LINKS} is the limit")
    return good


def check_ends(document: Document) -> None:
    """``inputs_at`` and ``outputs_at`` name a host or an accelerator."""
    known = tuple(name for _, name in _ids(document, "accelerators", "hosts"))
    for key in ("inputs_at", "outputs_at"):
        name = document.data.get(key)
        if isinstance(name, str) and name not in known:
            document.add((key,), unknown("host or accelerator", name, known))


def check_reach(document: Document, links: list[tuple[Place, str, str]]) -> None:
    """Every node is linked and reaches every other one, unless there is just one accelerator and nothing else."""
    nodes = _ids(document, "accelerators", "hosts", "switches")
    neighbours: dict[str, set[str]] = {}
    for _, first, second in links:
        neighbours.setdefault(first, set()).add(second)
        neighbours.setdefault(second, set()).add(first)
    start = next((name for _, name in nodes if name in neighbours), nodes[0][1])
    reached = {start}
    frontier = [start]
    while frontier:
        fresh = neighbours.get(frontier.pop(), set()) - reached
        reached |= fresh
        frontier += fresh
    for place, name in nodes if len(nodes) > 1 else []:
        if name not in neighbours:
            document.add(place, f"no link reaches {name!r}; add a link to it, or leave it out of the pool")
        elif name not in reached:
            document.add(place, f"no route leads from {start!r} to {name!r}; add a link between their groups")


def check_design_names(document: Document) -> dict[str, list[Place]]:
    """Inline designs are unique, and no accelerator lists a design twice.

    Returns:
        Per design name the places that ask for it, inline ones left out.
    """
    inline: dict[str, Place] = {}
    for index, entry in _entries(document, "designs"):
        name = entry.get("name")
        if isinstance(name, str):
            place: Place = ("designs", index, "name")
            if inline.setdefault(name, place) != place:
                document.add(
                    place, f"the design {name[:MAX_NAME_LENGTH]!r} is given twice (line {document.line(inline[name])})"
                )
    wanted: dict[str, list[Place]] = {}
    for index, entry in _entries(document, "accelerators"):
        listed = entry.get("designs")
        seen: set[str] = set()
        for number, name in enumerate(listed if isinstance(listed, list) else []):
            place = ("accelerators", index, "designs", number)
            if not isinstance(name, str):
                continue
            if name in seen:
                document.add(place, f"the design {name[:MAX_NAME_LENGTH]!r} is listed twice; once is enough")
            seen.add(name)
            if name not in inline:
                wanted.setdefault(name, []).append(place)
    return wanted
