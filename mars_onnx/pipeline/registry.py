"""Which passes there are: entry points of the group ``mars_onnx.passes``, and the common passes of onnx_ir.

Our own passes register like anybody else's. Only when mars_onnx itself is not installed (``python -m mars_onnx`` in a
bare checkout) does nobody announce them; then ``BUILT_IN`` does.
"""

import difflib
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import onnx_ir as ir
import onnx_ir.passes.common as common_passes

import mars_onnx
from mars_onnx.errors import UsageError

GROUP = "mars_onnx.passes"
DISTRIBUTION = "mars-onnx"
ONNX_IR_PREFIX = "onnx-ir."

# The same table as in pyproject.toml; a test compares the two.
BUILT_IN = {
    "canonicalize": "mars_passes.canonicalize:Canonicalize",
    "select-accelerators": "mars_passes.select_accelerators:SelectAccelerators",
    "insert-sharding": "mars_passes.insert_sharding:InsertSharding",
    "emit-partitions": "mars_passes.emit_partitions:EmitPartitions",
}


@dataclass(frozen=True)
class RegisteredPass:
    """A pass by name, not yet imported.

    Attributes:
        name: What pipeline text calls it.
        reference: ``module:class``, as in an entry point.
        distribution: Who brings it.
    """

    name: str
    reference: str
    distribution: str

    def load(self) -> type[ir.passes.PassBase]:
        """Import the class.

        Raises:
            UsageError: It cannot be imported or is no pass; the message names its distribution.
        """
        owner = f"the pass {self.name!r} of the distribution {self.distribution} ({self.reference})"
        module, _, attribute = self.reference.partition(":")
        try:
            found: object = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise UsageError(f"{owner} cannot be loaded: {type(error).__name__}: {error}") from error
        if not (isinstance(found, type) and issubclass(found, ir.passes.PassBase)):
            raise UsageError(f"{owner} is not a class derived from onnx_ir.passes.PassBase")
        return found


class Registry:
    """Passes by name.

    Raises:
        UsageError: Two distributions (or one, twice) claim one name; the message names both owners.
    """

    def __init__(self, entries: Iterable[RegisteredPass]) -> None:
        self._entries: dict[str, RegisteredPass] = {}
        for entry in entries:
            other = self._entries.setdefault(entry.name, entry)
            if other != entry:
                raise UsageError(
                    f"two passes are called {entry.name!r}: {other.reference} of the distribution {other.distribution} "
                    f"and {entry.reference} of {entry.distribution}; uninstall one of them or rename its entry point"
                )

    def __iter__(self) -> Iterator[RegisteredPass]:
        return iter(self._entries.values())

    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def find(self, name: str) -> RegisteredPass:
        """Return the pass called ``name``.

        Raises:
            UsageError: There is none; the message suggests the nearest names.
        """
        try:
            return self._entries[name]
        except KeyError:
            raise UsageError(f"there is no pass {name!r}{suggestion(name, self._entries)}") from None

    def name_of(self, pass_class: type) -> str:
        """Return the name under which ``pass_class`` is registered, else its class name in kebab case."""
        reference = f"{pass_class.__module__}:{pass_class.__qualname__}"
        for entry in self._entries.values():
            if entry.reference == reference:
                return entry.name
        if pass_class.__module__.startswith("onnx_ir.passes.common"):
            return ONNX_IR_PREFIX + kebab(pass_class.__name__)
        return kebab(pass_class.__name__)


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the tail of an error message: the names near ``name``, or all of them if none is near."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return "; did you mean " + " or ".join(repr(other) for other in near) + "?"
    return f"; there are: {', '.join(known)}" if known else ""


def kebab(class_name: str) -> str:
    """Return ``CommonSubexpressionEliminationPass`` as ``common-subexpression-elimination``."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+", class_name.removesuffix("Pass"))
    return "-".join(words).lower()


def prefer_neighbouring_passes() -> None:
    """Import ``mars_passes`` from beside the imported ``mars_onnx``, where it lies there.

    With a wheel installed, running inside a checkout would otherwise mix the checkout's mars_onnx with the wheel's
    mars_passes.
    """
    folder = Path(mars_onnx.__file__).resolve().parent.parent / "passes"
    if (folder / "mars_passes").is_dir() and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _entry_points() -> Iterator[RegisteredPass]:
    for point in metadata.entry_points(group=GROUP):
        owner = point.dist.name if point.dist is not None else "(unknown)"
        yield RegisteredPass(point.name, point.value.replace(" ", ""), owner)


def _built_in() -> Iterator[RegisteredPass]:
    for name, reference in BUILT_IN.items():
        yield RegisteredPass(name, reference, DISTRIBUTION)


def _onnx_ir() -> Iterator[RegisteredPass]:
    for class_name in common_passes.__all__:
        yield RegisteredPass(ONNX_IR_PREFIX + kebab(class_name), f"{common_passes.__name__}:{class_name}", "onnx-ir")


def discover() -> Registry:
    """Look up all passes afresh, ours first."""
    prefer_neighbouring_passes()
    found = list(_entry_points())
    if not any(entry.distribution == DISTRIBUTION for entry in found):
        found = [*_built_in(), *found]
    order = {name: position for position, name in enumerate(BUILT_IN)}
    found.sort(key=lambda entry: (order.get(entry.name, len(order)), entry.name))
    return Registry([*found, *_onnx_ir()])


@cache
def default_registry() -> Registry:
    """Return the passes of this process, looked up once."""
    return discover()
