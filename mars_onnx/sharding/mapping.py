"""The mapping: accelerator sets, their designs, and the strategy of every layer; as JSON that a person can write.

::

    {"schema": "mars-onnx/mapping/1",
     "sets": [{"accelerators": ["fpga0", "fpga1"], "design": "superlip",
               "layers": {"conv1": "ES(H=2)", "layer1.*": "auto"}}]}

``design`` may be a list, one per accelerator, or be left out: then each takes the first that it can. A layer is a node
of the canonical graph. In a file that a person writes, a name may be a pattern (``*``, ``?``, ``[...]``); an exact name
goes before patterns, and among patterns the first that fits counts. Every layer must be named by something, and
everything must name a layer.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from mars_onnx.errors import InputError
from mars_onnx.pool.topology import Pool
from mars_onnx.sharding.strategy import Strategy, parse_strategy

SCHEMA = "mars-onnx/mapping/1"
PLAN_SCHEMA = "mars-onnx/plan/1"


@dataclass(frozen=True, slots=True)
class AcceleratorSet:
    """Accelerators that compute the same layers together, configured with the same design.

    Attributes:
        members: Their ranks, in the order in which shares are dealt out.
        designs: Name of the design that each of them takes; they differ only where the accelerators do.
    """

    members: tuple[int, ...]
    designs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayerChoice:
    """Where a layer is computed and how it is cut.

    Attributes:
        name: Name of the node in the canonical graph.
        set_index: Index of its set.
        strategy: How it is cut over the members of the set.
    """

    name: str
    set_index: int
    strategy: Strategy


@dataclass(frozen=True, slots=True)
class Mapping:
    """Sets with their designs, and a choice for every layer in topological order."""

    sets: tuple[AcceleratorSet, ...]
    layers: tuple[LayerChoice, ...]

    def choice(self, name: str) -> LayerChoice:
        """The choice for a layer.

        Raises:
            KeyError: No layer has this name.
        """
        return _by_name(self)[name]

    def to_json(self, accelerator_ids: Sequence[str]) -> dict[str, object]:
        """The mapping as it is written to plan.json; layers keep their order."""
        return {
            "schema": SCHEMA,
            "sets": [
                {
                    "accelerators": [accelerator_ids[rank] for rank in own.members],
                    "design": own.designs[0] if len(set(own.designs)) == 1 else list(own.designs),
                    "layers": {
                        choice.name: str(choice.strategy) for choice in self.layers if choice.set_index == index
                    },
                }
                for index, own in enumerate(self.sets)
            ],
        }


@lru_cache(maxsize=8)
def _by_name(mapping: Mapping) -> dict[str, LayerChoice]:
    return {choice.name: choice for choice in mapping.layers}


def _design_names(pool: Pool, rank: int) -> tuple[str, ...]:
    return tuple(design.name for design in pool.accelerators[rank].designs)


def parse_mapping(text: str, where: str, pool: Pool, layers: Sequence[str]) -> Mapping:
    """Read a mapping for a model with the given layers (node names, in topological order).

    Args:
        text: JSON: a mapping, or a whole plan.json that holds one.
        where: What to call the text in messages, usually its path.
        pool: The pool that it is about.
        layers: Names of the nodes of the canonical graph.

    Raises:
        InputError: The text is not a mapping for this pool and model; all that is wrong with its names is listed.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from error
    if isinstance(document, dict) and document.get("schema") == PLAN_SCHEMA:
        document = document.get("mapping")
    reader = _Reader(where, text)
    body = reader.mapping(document, "the mapping", ("schema", "sets"))
    if body["schema"] != SCHEMA:
        raise reader.wrong("schema", f"is {body['schema']!r}, not {SCHEMA!r}")
    entries = reader.sequence(body["sets"], "sets")
    if not entries:
        raise reader.wrong("sets", "is empty: at least one set of accelerators is needed")
    sets: list[AcceleratorSet] = []
    rules: list[dict[str, Strategy]] = []
    for index, entry in enumerate(entries):
        place = f"sets[{index}]"
        fields = reader.mapping(entry, place, ("accelerators", "design", "layers"), optional=("design",))
        sets.append(_parse_set(reader, place, fields, pool, sets))
        own: dict[str, Strategy] = {}
        for name, strategy in reader.mapping(fields["layers"], f"{place}.layers").items():
            if not isinstance(strategy, str):
                raise reader.wrong(f"{place}.layers[{name!r}]", f"is {strategy!r}, not a strategy as text", name)
            try:
                own[name] = parse_strategy(strategy)
            except InputError as error:
                raise reader.wrong(f"{place}.layers[{name!r}]", str(error), name) from error
        rules.append(own)
    return Mapping(tuple(sets), _assign(reader, rules, layers))


def _parse_set(
    reader: _Reader,
    place: str,
    fields: MappingType[str, object],
    pool: Pool,
    earlier: Sequence[AcceleratorSet],
) -> AcceleratorSet:
    members: list[int] = []
    ids = tuple(accelerator.id for accelerator in pool.accelerators)
    for name in reader.sequence(fields["accelerators"], f"{place}.accelerators"):
        if name not in ids:
            raise reader.wrong(
                f"{place}.accelerators",
                f"names {name!r}, which is no accelerator of pool {pool.name}{_nearest(name, ids)}",
                name,
            )
        rank = ids.index(str(name))
        if rank in members or any(rank in other.members for other in earlier):
            raise reader.wrong(f"{place}.accelerators", f"{name!r} is in a set already", name)
        members.append(rank)
    if not members:
        raise reader.wrong(f"{place}.accelerators", "is empty")
    return AcceleratorSet(tuple(members), _parse_designs(reader, place, fields.get("design"), pool, members))


def _parse_designs(reader: _Reader, place: str, value: object, pool: Pool, members: Sequence[int]) -> tuple[str, ...]:
    """One design for all, a list with one per accelerator, or nothing: then everyone takes its default."""
    if value is None:
        return tuple(_design_names(pool, rank)[0] for rank in members)
    designs = [value] * len(members) if isinstance(value, str) else reader.sequence(value, f"{place}.design")
    if len(designs) != len(members):
        raise reader.wrong(f"{place}.design", f"lists {len(designs)} designs for {len(members)} accelerators")
    for rank, design in zip(members, designs, strict=True):
        if design not in _design_names(pool, rank):
            raise reader.wrong(
                f"{place}.design",
                f"{pool.accelerators[rank].id} cannot take the design {design!r}; it can take "
                + ", ".join(_design_names(pool, rank)),
                design,
            )
    return tuple(str(design) for design in designs)


def _assign(
    reader: _Reader, rules: Sequence[MappingType[str, Strategy]], layers: Sequence[str]
) -> tuple[LayerChoice, ...]:
    """A choice per layer: exact names first, then patterns in the order of the file."""
    exact: dict[str, tuple[int, Strategy]] = {}
    patterns: list[tuple[str, int, Strategy]] = []
    known = set(layers)
    problems: list[str] = []
    for index, own in enumerate(rules):
        for name, strategy in own.items():
            if name in known:
                if name in exact:
                    problems.append(
                        f"{reader.at(name)} layer {name!r} stands in sets[{exact[name][0]}] and sets[{index}]"
                    )
                exact[name] = (index, strategy)
            elif any(mark in name for mark in "*?["):
                patterns.append((name, index, strategy))
            else:
                problems.append(f"{reader.at(name)} the model has no layer {name!r}{_nearest(name, layers)}")
    matched: set[str] = set()
    choices: list[LayerChoice] = []
    missing: list[str] = []
    for layer in layers:
        found = exact.get(layer)
        fitting = [entry for entry in patterns if fnmatchcase(layer, entry[0])]
        matched.update(pattern for pattern, _, _ in fitting)
        if found is None and fitting:
            found = fitting[0][1:]
        if found is None:
            missing.append(layer)
        else:
            choices.append(LayerChoice(layer, *found))
    problems += [
        f"{reader.at(name)} the pattern {name!r} fits no layer of the model"
        for name, _, _ in patterns
        if name not in matched
    ]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        problems.append(
            f'{reader.where}: no set computes {shown}; name them, or add a pattern such as "*": "auto" to a set'
        )
    if problems:
        raise InputError("\n".join(problems))
    return tuple(choices)


def _nearest(name: object, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in one object")
        found[key] = value
    return found


@dataclass(frozen=True, slots=True)
class _Reader:
    """Checks the form of a document and says where it is wrong."""

    where: str
    text: str

    def at(self, key: object) -> str:
        """File and line of the first place where a string stands, as well as it can be told from the text."""
        quoted = json.dumps(key) if isinstance(key, str) else ""
        offset = self.text.find(quoted) if quoted else -1
        return f"{self.where}:{self.text.count(chr(10), 0, offset) + 1}:" if offset >= 0 else f"{self.where}:"

    def wrong(self, place: str, what: str, key: object = None) -> InputError:
        """An error about a place in the document."""
        return InputError(f"{self.at(key if key is not None else place.rpartition('.')[2])} {place}: {what}")

    def mapping(
        self, value: object, place: str, keys: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> dict[str, object]:
        """An object, with exactly the given keys if any are given."""
        if not isinstance(value, dict):
            raise self.wrong(place, f"is not an object but {type(value).__name__}")
        for key in value:
            if keys and key not in keys:
                raise self.wrong(place, f"has an unknown key {key!r}{_nearest(key, keys)}", key)
        for key in keys:
            if key not in value and key not in optional:
                raise self.wrong(place, f"lacks the key {key!r}")
        return value

    def sequence(self, value: object, place: str) -> list[object]:
        """A list."""
        if not isinstance(value, list):
            raise self.wrong(place, f"is not a list but {type(value).__name__}")
        return value
