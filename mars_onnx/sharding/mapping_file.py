"""Reading a mapping from JSON, as a person or the tool itself wrote it; all that is wrong is told with its line.

A layer is a node of the canonical graph. A name may be a pattern (``*``, ``?``, ``[...]``); an exact name goes before
patterns, and among patterns the first that fits counts. Every layer must be named by something, and everything must
name a layer. ``design`` may be a list, one per accelerator, or be left out: then each takes the first that it can.
``enters`` names tensors; whether they exist is checked where the graph is known (``mars_onnx.stages.sharded``).
"""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from mars_onnx.errors import InputError
from mars_onnx.pool.document import Document, Place, parse_document, raise_problems, read_text, suggestion, unknown
from mars_onnx.pool.topology import Pool
from mars_onnx.sharding.mapping import PLAN_SCHEMA, SCHEMA, AcceleratorSet, Entry, LayerChoice, Mapping
from mars_onnx.sharding.strategy import Strategy, parse_strategy

#: A mapping file of more bytes than this is none.
_LARGEST_BYTES = 64 * 2**20
_SHOWN_LAYERS = 5


def load_mapping(path: Path, pool: Pool, layers: Sequence[str]) -> Mapping:
    """Read a mapping file, or the mapping in a plan.json; see :func:`parse_mapping`."""
    return parse_mapping(read_text(path, _LARGEST_BYTES), path, pool, layers)


def parse_mapping(text: str, path: Path, pool: Pool, layers: Sequence[str]) -> Mapping:
    """Read a mapping for a model with the given layers (node names, in topological order).

    Args:
        text: JSON: a mapping, or a whole plan.json that holds one.
        path: What to call the text in messages.
        pool: The pool that it is about.
        layers: Names of the nodes of the canonical graph.

    Raises:
        InputError: The text is not a mapping for this pool and model.
    """
    document = parse_document(text, path)
    at: Place = ()
    if document.data.get("schema") == PLAN_SCHEMA:
        at = ("mapping",)
    reader = _Reader(document, pool)
    body = reader.fields(document.data.get("mapping") if at else document.data, at, ("schema", "sets"))
    if body.get("schema", SCHEMA) != SCHEMA:
        document.add((*at, "schema"), f"this is {body['schema']!r}, not {SCHEMA!r}")
    entries = reader.items(body["sets"], (*at, "sets")) if "sets" in body else []
    if "sets" in body and entries == []:
        document.add((*at, "sets"), "this is empty: at least one set of accelerators is needed")
    sets = [reader.accelerator_set(entry, (*at, "sets", index)) for index, entry in enumerate(entries)]
    raise_problems(document.messages())
    choices = _assign(reader, [(*at, "sets", index, "layers") for index in range(len(sets))], layers)
    raise_problems(document.messages())
    return Mapping(tuple(sets), choices, tuple(reader.entries))


class _Reader:
    """Checks one document, and notes in it what is wrong."""

    def __init__(self, document: Document, pool: Pool) -> None:
        self.document = document
        self.pool = pool
        self.ids = tuple(accelerator.id for accelerator in pool.accelerators)
        self.taken: set[int] = set()
        #: Per set the strategies by layer name or pattern.
        self.strategies: list[dict[str, Strategy]] = []
        self.entries: list[Entry] = []

    def fields(
        self, value: object, at: Place, keys: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> dict[str, object]:
        """An object, with no other keys than the given ones if any are given."""
        if not isinstance(value, dict):
            self.document.add(at, f"this should be an object, and is {_kind(value)}")
            return {}
        for key in value:
            if keys and key not in keys:
                self.document.add((*at, key), f"unknown key; {suggestion(key, tuple(keys))}")
        for key in keys:
            if key not in value and key not in optional:
                self.document.add(at, f"the key {key!r} is missing")
        return value

    def items(self, value: object, at: Place) -> list[object]:
        """A list."""
        if not isinstance(value, list):
            self.document.add(at, f"this should be a list, and is {_kind(value)}")
            return []
        return value

    def accelerator_set(self, entry: object, at: Place) -> AcceleratorSet:
        """One set; of its layers the strategies are read, and names looked up later."""
        keys = ("accelerators", "design", "layers", "enters")
        fields = self.fields(entry, at, keys, optional=("design", "enters"))
        members = self.members(fields["accelerators"], (*at, "accelerators")) if "accelerators" in fields else ()
        entering = self.layers(fields.get("enters", {}), (*at, "enters"))
        self.entries += [Entry(tensor, len(self.strategies), strategy) for tensor, strategy in entering.items()]
        self.strategies.append(self.layers(fields.get("layers", {}), (*at, "layers")))
        return AcceleratorSet(members, self.designs(fields.get("design"), (*at, "design"), members))

    def members(self, value: object, at: Place) -> tuple[int, ...]:
        """Ranks of accelerators, each in one set only."""
        members: list[int] = []
        names = self.items(value, at)
        for index, name in enumerate(names):
            rank = self.pool.ranks.get(name) if isinstance(name, str) else None
            if rank is None:
                message = unknown("accelerator", str(name), self.ids)
                self.document.add((*at, index), f"{message} (pool {self.pool.name})")
            elif rank in self.taken:
                self.document.add((*at, index), f"{name!r} is in a set already")
            else:
                members.append(rank)
                self.taken.add(rank)
        if not names and isinstance(value, list):
            self.document.add(at, "this is empty: a set needs accelerators")
        return tuple(members)

    def designs(self, value: object, at: Place, members: Sequence[int]) -> tuple[str, ...]:
        """One design for all, a list with one per accelerator, or nothing: then everyone takes its default."""
        possible = [tuple(design.name for design in self.pool.accelerators[rank].designs) for rank in members]
        if value is None:
            return tuple(names[0] for names in possible)
        designs = [value] * len(members) if isinstance(value, str) else self.items(value, at)
        if len(designs) != len(members):
            self.document.add(at, f"this lists {len(designs)} designs for {len(members)} accelerators")
            return ()
        for rank, names, design in zip(members, possible, designs, strict=True):
            if design not in names:
                self.document.add(
                    at, f"{self.ids[rank]} cannot take the design {design!r}; it can take {', '.join(names)}"
                )
        return tuple(map(str, designs))

    def layers(self, value: object, at: Place) -> dict[str, Strategy]:
        """Strategies by layer name or pattern, or by tensor name."""
        strategies: dict[str, Strategy] = {}
        for name, text in self.fields(value, at).items():
            if not isinstance(text, str):
                self.document.add((*at, name), f"a strategy is text such as 'ES(H=2)'; this is {_kind(text)}")
                continue
            try:
                strategies[name] = parse_strategy(text)
            except InputError as error:
                self.document.add((*at, name), str(error))
        return strategies


def _assign(reader: _Reader, places: Sequence[Place], layers: Sequence[str]) -> tuple[LayerChoice, ...]:
    """A choice per layer: exact names first, then patterns in the order of the file."""
    exact: dict[str, tuple[int, Strategy]] = {}
    patterns: list[tuple[str, int, Strategy]] = []
    known = frozenset(layers)
    for index, (own, at) in enumerate(zip(reader.strategies, places, strict=True)):
        for name, strategy in own.items():
            if name in exact:
                reader.document.add((*at, name), f"the layer stands in sets[{exact[name][0]}] already")
            elif name in known:
                exact[name] = (index, strategy)
            elif any(mark in name for mark in "*?["):
                patterns.append((name, index, strategy))
            else:
                reader.document.add((*at, name), unknown("layer", name, tuple(layers)))
    choices: list[LayerChoice] = []
    missing: list[str] = []
    matched: set[str] = set()
    for layer in layers:
        fitting = [entry for entry in patterns if fnmatchcase(layer, entry[0])]
        matched.update(pattern for pattern, _, _ in fitting)
        found = exact.get(layer) or (fitting[0][1:] if fitting else None)
        if found is None:
            missing.append(layer)
        else:
            choices.append(LayerChoice(layer, *found))
    for name, index, _ in patterns:
        if name not in matched:
            reader.document.add((*places[index], name), "the pattern fits no layer of the model")
    if missing:
        more = len(missing) - _SHOWN_LAYERS
        shown = ", ".join(missing[:_SHOWN_LAYERS]) + (f" and {more} more" if more > 0 else "")
        reader.document.add(
            places[0][:-2], f'no set computes {shown}; name them, or add a pattern such as "*": "auto" to a set'
        )
    return tuple(choices)


_KINDS: MappingType[type, str] = {dict: "an object", list: "a list", str: "text", bool: "true or false"}


def _kind(value: object) -> str:
    return "nothing" if value is None else _KINDS.get(type(value), "a number")
