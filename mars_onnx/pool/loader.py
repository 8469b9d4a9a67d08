"""From a pool file to a checked :class:`~mars_onnx.pool.topology.Pool`."""

from __future__ import annotations

import hashlib
import json
import re
from functools import partial
from pathlib import Path

from mars_onnx.data import data_folder
from mars_onnx.errors import InputError
from mars_onnx.pool.checks import check_design_names, check_ends, check_ids, check_links, check_reach
from mars_onnx.pool.collectives import ALGORITHMS, Collectives, Overhead
from mars_onnx.pool.document import MAX_PROBLEMS, Document, Place, raise_problems, read_document, suggestion, unknown
from mars_onnx.pool.format import (
    MAX_FILE_BYTES,
    NAME_PATTERN,
    CollectivesEntry,
    DesignEntry,
    DesignFile,
    OverlapEntry,
    PoolFile,
)
from mars_onnx.pool.messages import validate
from mars_onnx.pool.numbers import Parameters
from mars_onnx.pool.parameters import known_models, parameters_type
from mars_onnx.pool.topology import Accelerator, Design, Link, Overlap, Pool


def shipped_pools() -> tuple[str, ...]:
    """Names of the pools that come with mars_onnx."""
    return tuple(sorted(path.stem for path in data_folder("hwdb").glob("*.json")))


def find_pool(pool: str | Path) -> Path:
    """The file of a pool, given as a path or as the name of a shipped pool.

    Raises:
        InputError: There is none.
    """
    path = Path(pool)
    text = str(pool)
    if not text:
        raise InputError(f"the name of the pool is empty; known are: {', '.join(shipped_pools())}")
    if re.fullmatch(NAME_PATTERN, text) and not path.is_file():
        shipped = data_folder("hwdb") / f"{text.removesuffix('.json')}.json"
        if shipped.is_file():
            return shipped
    try:
        exists = path.exists()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{text[:200]!r}: no usable path of a pool file: {getattr(error, 'strerror', None) or error}"
        ) from error
    if not exists:
        raise InputError(
            f"{text}: no such pool file, and no shipped pool of that name; {suggestion(path.stem, shipped_pools())}"
        )
    return path


def load_pool(pool: str | Path) -> Pool:
    """Read and check a pool.

    Args:
        pool: Path of a pool file, or name of a shipped pool.

    Raises:
        InputError: With all problems of the file, one per line: ``file:line: where: what is wrong; what would be
            right``. Problems of design files follow those of the pool.
    """
    document = read_document(find_pool(pool), MAX_FILE_BYTES)
    entry = validate(document, document.data, PoolFile)
    check_ids(document)
    links = check_links(document)
    check_ends(document)
    wanted = check_design_names(document)
    if document.sound:
        check_reach(document, links)
    designs: dict[str, Design] = {}
    for index, inline in enumerate(entry.designs if entry else ()):
        if design := _resolve(document, inline, ("designs", index)):
            designs[inline.name] = design
    further: list[str] = []
    for name, places in wanted.items():
        if not re.fullmatch(NAME_PATTERN, name):
            continue  # said already
        try:
            found = _find_design(document, name)
            if found is None:
                known = tuple({*_available(document.path), *designs})
                for place in places:
                    document.add(place, partial(unknown, "design", name, known))
            else:
                designs[name] = load_design(found)
        except InputError as error:
            further += str(error).splitlines()
    raise_problems([*document.messages(), *further[: 2 * MAX_PROBLEMS]])
    if entry is None:  # impossible: then there are problems
        raise InputError(f"{document.path}: not a pool")
    return _pool(entry, designs)


def load_design(path: Path) -> Design:
    """Read and check a design file.

    Raises:
        InputError: As for :func:`load_pool`.
    """
    document = read_document(path, MAX_FILE_BYTES)
    entry = validate(document, document.data, DesignFile)
    if entry and entry.name != path.stem:
        document.add(("name",), f"is {entry.name!r} in a file called {path.name!r}; the two should agree")
    design = _resolve(document, entry, ()) if entry else None
    raise_problems(document.messages())
    if design is None:  # impossible: then there are problems
        raise InputError(f"{path}: not a design")
    return design


def _resolve(document: Document, entry: DesignEntry, at: Place) -> Design | None:
    """A design with its parameters checked by what its performance model wants."""
    try:
        kind = parameters_type(entry.model)
    except InputError as error:
        document.add((*at, "model"), str(error))
        return None
    if kind is None:
        document.add((*at, "model"), unknown("performance model", entry.model, known_models()))
        return None
    parameters = validate(document, entry.parameters, kind, (*at, "parameters"))
    if parameters is None:
        return None
    return Design(
        name=entry.name,
        title=entry.title,
        model=entry.model,
        parameters=parameters,
        data_bits=entry.data_bits,
        source=entry.source,
        reconstructed=entry.reconstructed,
        notes=entry.notes,
    )


def _design_folders(pool: Path) -> tuple[Path, ...]:
    return (pool.parent / "designs", data_folder("hwdb") / "designs")


def _available(pool: Path) -> set[str]:
    return {path.stem for folder in _design_folders(pool) if folder.is_dir() for path in folder.glob("*.json")}


def _find_design(document: Document, name: str) -> Path | None:
    for folder in _design_folders(document.path):
        path = folder / f"{name}.json"
        if path.is_file():
            if not path.resolve().is_relative_to(folder.resolve()):
                raise InputError(f"{path}: leads out of its folder; put the design itself there")
            return path
    return None


def _pool(entry: PoolFile, designs: dict[str, Design]) -> Pool:
    ids = [accelerator.id for accelerator in entry.accelerators]
    ids += [node.id for node in (*entry.hosts, *entry.switches)]
    number = {name: index for index, name in enumerate(ids)}
    pairs = [(group, ends) for group in entry.links for ends in group.between]
    default = len(entry.accelerators) if len(entry.hosts) == 1 else 0
    accelerators = tuple(
        Accelerator(
            rank=rank,
            id=accelerator.id,
            kind=accelerator.kind,
            designs=tuple(designs[name] for name in accelerator.designs),
            memory_bytes=accelerator.memory_bytes,
            memory_bandwidth_bytes_per_s=accelerator.memory_bandwidth_bytes_per_s,
            source=accelerator.source,
            provider=accelerator.provider,
        )
        for rank, accelerator in enumerate(entry.accelerators)
    )
    used = {design.name: design for accelerator in accelerators for design in accelerator.designs}
    return Pool(
        name=entry.name,
        title=entry.title,
        accelerators=accelerators,
        hosts=tuple(host.id for host in entry.hosts),
        switches=tuple(switch.id for switch in entry.switches),
        links=tuple(
            Link(
                index=index,
                ends=(number[ends[0]], number[ends[1]]),
                bandwidth_bytes_per_s=group.bandwidth_bytes_per_s,
                latency_s=group.latency_s,
                full_duplex=group.duplex == "full",
                source=group.source,
                shared=group.shared,
            )
            for index, (group, ends) in enumerate(pairs)
        ),
        inputs_at=number[entry.inputs_at] if entry.inputs_at else default,
        outputs_at=number[entry.outputs_at] if entry.outputs_at else default,
        sha256=_digest(entry, used),
        source=entry.source,
        reconstructed=entry.reconstructed
        or any(accelerator.reconstructed for accelerator in entry.accelerators)
        or any(link.reconstructed for link in entry.links)
        or any(design.reconstructed for design in used.values())
        or (entry.collectives is not None and entry.collectives.reconstructed),
        notes=entry.notes,
        collectives=_collectives(entry.collectives),
        stores=frozenset(
            number[node.id] for node in (*entry.hosts, *entry.switches) if node.forwarding == "store_and_forward"
        ),
        overlap=_overlap(entry.overlap),
    )


def _collectives(entry: CollectivesEntry | None) -> Collectives:
    if entry is None:
        return Collectives()
    chosen = {name: getattr(entry.algorithms, name) or known for name, known in ALGORITHMS.items()}
    return Collectives(
        chunks=entry.chunks,
        endpoint_latency_s=entry.endpoint_latency_s,
        reduction_bytes_per_s=entry.reduction_bytes_per_s,
        reductions_overlap=entry.reductions == "overlapped",
        algorithms=chosen,
        overheads={
            op: Overhead(own.latency_s, own.kept_bytes_per_s, own.assembled_bytes_per_s)
            for own in entry.overheads
            for op in own.ops
        },
        source=entry.source,
    )


def _overlap(entry: OverlapEntry | None) -> Overlap | None:
    if entry is None:
        return None
    return Overlap(
        communication_with_compute=entry.communication_with_compute,
        double_buffering=entry.double_buffering,
        prefetch_bytes=entry.prefetch_bytes,
        contention=entry.contention,
        local_moves=entry.local_moves,
        source=entry.source,
    )


def _digest(entry: PoolFile, used: dict[str, Design]) -> str:
    """Hash of the content: the same for another order of keys or spacing, and wherever the designs stand."""
    content = entry.model_dump(mode="json", by_alias=True, exclude={"designs"})
    content["designs"] = {name: _plain(used[name]) for name in sorted(used)}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(design: Design) -> dict[str, object]:
    parameters: Parameters = design.parameters
    return {
        "title": design.title,
        "model": design.model,
        "parameters": parameters.model_dump(mode="json"),
        "data_bits": design.data_bits,
        "source": design.source,
        "reconstructed": design.reconstructed,
        "notes": design.notes,
    }
