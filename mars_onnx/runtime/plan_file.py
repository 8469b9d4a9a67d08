"""plan.json: which file runs on which accelerator, and which box of every input and output it takes and gives.

A folder of partitions may come from anybody, so that everything is checked before it is used: no file outside the
folder, no sizes out of the ordinary, nothing but what the schema says, and the files as they were when written.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from mars_onnx.errors import InputError
from mars_onnx.geometry import Box, box_text, contains, intersect, volume, whole_box
from mars_onnx.pool.document import read_text
from mars_onnx.pool.format import MAX_ACCELERATORS, PROVIDER_PATTERN
from mars_onnx.runtime.plan_fields import PlanReader
from mars_onnx.sharding.mapping import PLAN_SCHEMA

FILE_NAME = "plan.json"
MAX_RANK = MAX_ACCELERATORS - 1
MAX_ELEMENTS = 2**40
MAX_BYTES = 256 * 2**20
"""Of plan.json itself."""

_Item = TypeVar("_Item", int, str)


@dataclass(frozen=True, slots=True)
class PartitionEntry:
    """One accelerator's file, and the execution provider of ONNX Runtime that runs it; ``None``: the default."""

    rank: int
    accelerator: str
    set: int
    design: str
    file: str
    data_file: str | None
    sha256: str
    data_sha256: str | None
    provider: str | None = None


@dataclass(frozen=True, slots=True)
class RankBox:
    """The box of a tensor that one accelerator takes or gives."""

    rank: int
    box: Box


@dataclass(frozen=True, slots=True)
class TensorBoxes:
    """An input or output of the model, and who has which box of it. ``dtype`` is a name as numpy has it."""

    tensor: str
    dtype: str
    shape: tuple[int, ...]
    boxes: tuple[RankBox, ...]

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element type, also bfloat16 and the like."""
        return numpy_dtype(self.dtype)


@dataclass(frozen=True, slots=True)
class CommunicationEntry:
    """One communication; ``bytes`` is what reaches all members together."""

    tag: int
    op: str
    tensor: str
    group: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class NamedHash:
    """A name and the SHA-256 of the file it came from."""

    name: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class PlanFile:
    """The content of plan.json. To run partitions, ``partitions``, ``inputs`` and ``outputs`` are enough."""

    partitions: tuple[PartitionEntry, ...]
    inputs: tuple[TensorBoxes, ...]
    outputs: tuple[TensorBoxes, ...]
    model: NamedHash = NamedHash()
    pool: NamedHash = NamedHash()
    mapping: Mapping[str, Any] = field(default_factory=dict)
    communication: tuple[CommunicationEntry, ...] = ()
    mars_onnx: str = ""

    def problems(self) -> list[str]:
        """What is inconsistent; empty if nothing is."""
        found: list[str] = []
        ranks = [partition.rank for partition in self.partitions]
        if not ranks:
            found.append("there are no partitions")
        found += [f"rank {rank} has two partitions" for rank in _repeated(ranks)]
        for kind, tensors in (("input", self.inputs), ("output", self.outputs)):
            names = [tensor.tensor for tensor in tensors]
            found += [f"{kind} {name!r} occurs twice" for name in _repeated(names)]
            for tensor in tensors:
                wrong = _tensor_problems(tensor, set(ranks))
                # Only of boxes that are one per partition: all pairs are looked at.
                if kind == "output" and not wrong:
                    wrong = _tiling_problems(tensor)
                found += [f"{kind} {tensor.tensor!r}: {text}" for text in wrong]
        return found


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The element type of this name.

    Raises:
        KeyError: ONNX tensors cannot have it.
    """
    return _DTYPES[name]


def _dtypes() -> dict[str, np.dtype[Any]]:
    types = [kind.numpy() for kind in ir.DataType if kind not in (ir.DataType.UNDEFINED, ir.DataType.STRING)]
    return {kind.name: kind for kind in types}


_DTYPES = _dtypes()


def load_plan(folder: str | Path, check_hashes: bool = True) -> PlanFile:
    """Read ``plan.json`` of a folder of partitions.

    Args:
        folder: Where plan.json and the partitions are.
        check_hashes: Whether to read all files and compare them with what plan.json says.

    Raises:
        InputError: It is missing or malformed, names files outside the folder, or files have changed.
    """
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        raise InputError(f"{path}: no such file; the folder should be one that mars_onnx has written")
    try:
        content = json.loads(read_text(path, MAX_BYTES))
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits is a ValueError, too
        raise InputError(f"{path}: not JSON: {error}") from None
    plan = parse_plan(content, str(path))
    for partition in plan.partitions:
        check_partition(folder, partition, check_hashes)
    return plan


def check_partition(folder: str | Path, partition: PartitionEntry, check_hashes: bool = True) -> Path:
    """Check the files of one accelerator, and say where its partition is.

    Raises:
        InputError: A file leads out of the folder, cannot be read, or has changed.
    """
    plan = Path(folder) / FILE_NAME
    for name, digest in ((partition.file, partition.sha256), (partition.data_file, partition.data_sha256)):
        if name is None:
            continue
        file = _inside(Path(folder), name, plan)
        if check_hashes and file_sha256(file) != digest:
            raise InputError(f"{file}: not the file that {plan} was written with (its SHA-256 differs)")
    return Path(folder) / partition.file


def parse_plan(content: object, place: str = FILE_NAME) -> PlanFile:
    """Check the content of a plan.json and make it typed.

    Raises:
        InputError: Malformed; the message has the place inside the file.
    """
    reader = PlanReader(content, place)
    if reader.text("schema") != PLAN_SCHEMA:
        raise InputError(f"{place}: schema is {reader.text('schema')!r}; this version reads {PLAN_SCHEMA!r}")
    plan = PlanFile(
        partitions=tuple(_partition(entry) for entry in reader.entries("partitions")),
        inputs=tuple(_tensor(entry) for entry in reader.entries("inputs")),
        outputs=tuple(_tensor(entry) for entry in reader.entries("outputs")),
        model=_named_hash(reader.entry("model")),
        pool=_named_hash(reader.entry("pool")),
        mapping=reader.mapping("mapping"),
        communication=tuple(
            CommunicationEntry(
                e.integer("tag"), e.text("op"), e.text("tensor"), e.integers("group", MAX_RANK), e.integer("bytes")
            )
            for e in reader.entries("communication")
        ),
        mars_onnx=reader.text("mars_onnx"),
    )
    problems = plan.problems()
    if problems:
        raise InputError(f"{place}: {problems[0]}" + (f" (and {len(problems) - 1} more)" if problems[1:] else ""))
    return plan


def dump_plan(plan: PlanFile) -> str:
    """The text of plan.json, keys in the order that docs/architecture.md gives."""
    content = {
        "schema": PLAN_SCHEMA,
        "mars_onnx": plan.mars_onnx,
        "model": asdict(plan.model),
        "pool": asdict(plan.pool),
        "mapping": dict(plan.mapping),
        "partitions": [asdict(partition) for partition in plan.partitions],
        "inputs": [asdict(tensor) for tensor in plan.inputs],
        "outputs": [asdict(tensor) for tensor in plan.outputs],
        "communication": [asdict(entry) for entry in plan.communication],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as text.

    Raises:
        InputError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _partition(reader: PlanReader) -> PartitionEntry:
    return PartitionEntry(
        rank=reader.integer("rank", MAX_RANK),
        accelerator=reader.text("accelerator"),
        set=reader.integer("set"),
        design=reader.text("design"),
        file=_file_name(reader.text("file"), reader.place),
        data_file=_file_name(reader.text("data_file"), reader.place) if reader.present("data_file") else None,
        sha256=reader.text("sha256"),
        data_sha256=reader.text("data_sha256") if reader.present("data_file") else None,
        provider=_provider(reader) if reader.present("provider") else None,
    )


def _provider(reader: PlanReader) -> str:
    name = reader.text("provider")
    if re.match(PROVIDER_PATTERN, name) is None:
        raise InputError(f"{reader.place}: provider should be the name of an execution provider, is {name[:60]!r}")
    return name


def _tensor(reader: PlanReader) -> TensorBoxes:
    tensor = TensorBoxes(
        tensor=reader.text("tensor"),
        dtype=reader.text("dtype"),
        shape=reader.integers("shape", MAX_ELEMENTS),
        boxes=tuple(RankBox(e.integer("rank", MAX_RANK), e.box("box", MAX_ELEMENTS)) for e in reader.entries("boxes")),
    )
    if tensor.dtype not in _DTYPES:
        raise InputError(f"{reader.place}: {tensor.dtype!r} is no element type of tensors")
    if prod(tensor.shape) > MAX_ELEMENTS:
        raise InputError(f"{reader.place}: shape {list(tensor.shape)} has more than {MAX_ELEMENTS} elements")
    return tensor


def _named_hash(reader: PlanReader) -> NamedHash:
    return NamedHash(reader.text("name"), reader.text("sha256"))


def _file_name(name: str, place: str) -> str:
    """A plain file name: what is a path on any system is refused on all."""
    plain = PurePosixPath(name).name == name and PureWindowsPath(name).name == name
    if not plain or name in ("", ".", "..") or ":" in name or any(ord(character) < 32 for character in name):
        raise InputError(f"{place}: {name!r} is not the plain name of a file in the folder")
    return name


def _inside(folder: Path, name: str, plan: Path) -> Path:
    path = folder / name
    if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{plan}: {name} leads out of the folder")
    return path


def _repeated(items: Iterable[_Item]) -> list[_Item]:
    return sorted(item for item, count in Counter(items).items() if count > 1)


def _tensor_problems(tensor: TensorBoxes, ranks: set[int]) -> list[str]:
    found: list[str] = []
    whole = whole_box(tensor.shape)
    owners = [held.rank for held in tensor.boxes]
    found += [f"accelerator {rank} has two boxes of it" for rank in _repeated(owners)]
    for held in tensor.boxes:
        if held.rank not in ranks:
            found.append(f"rank {held.rank} has no partition")
        inside = len(held.box) == len(whole) and contains(whole, held.box)
        empty = any(start >= stop for start, stop in held.box)
        if not inside or (empty and 0 not in tensor.shape):
            found.append(f"the box {box_text(held.box)} of rank {held.rank} is not inside {box_text(whole)}")
    return found


def _tiling_problems(tensor: TensorBoxes) -> list[str]:
    boxes = [held.box for held in tensor.boxes]
    for number, box in enumerate(boxes):
        for other in boxes[:number]:
            if intersect(box, other) is not None:
                return [f"the boxes {box_text(other)} and {box_text(box)} overlap"]
    if not boxes or sum(map(volume, boxes)) != prod(tensor.shape):
        return [f"the boxes do not cover its shape {list(tensor.shape)}"]
    return []
