"""Builds the reference networks with seeded random weights: ``python -m models.build resnet34 -o DIR``."""

import argparse
import difflib
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import onnx

from mars_onnx.errors import MarsError, UsageError

from . import depthwise, encoder, face_anti_spoofing, light, plain_convolutional, residual
from .graph_writer import DEFAULT_OPSET, Skeleton
from .model_size import mac_count, parameter_count
from .random_weights import fill

_MIN_OPSET = 13


class _Entry(NamedTuple):
    """A network: how to write its skeleton for a batch size and an opset, and where it comes from."""

    write: Callable[[int, int | None], Skeleton]
    source: str


def _at_opset(write: Callable[..., Skeleton], batch: int, opset: int | None) -> Skeleton:
    """Call ``write`` with the default opset filled in and the given one checked."""
    opset = DEFAULT_OPSET if opset is None else opset
    newest = onnx.defs.onnx_opset_version()
    if not _MIN_OPSET <= opset <= newest:
        raise UsageError(f"opset {opset}: these networks can be written at opset {_MIN_OPSET} to {newest}")
    return write(batch=batch, opset=opset)


def _catalog() -> dict[str, _Entry]:
    plain: dict[str, tuple[Callable[..., Skeleton], str]] = {
        "alexnet": (plain_convolutional.alexnet, plain_convolutional.ALEXNET_SOURCE),
        "vgg16": (plain_convolutional.vgg16, plain_convolutional.VGG16_SOURCE),
        **{n: (partial(residual.residual_network, n), residual.source(n)) for n in residual.VARIANTS},
        "mobilenet": (depthwise.mobilenet, depthwise.SOURCE),
        "casia_surf": (face_anti_spoofing.casia_surf, face_anti_spoofing.CASIA_SURF_SOURCE),
        "facebagnet": (face_anti_spoofing.facebagnet, face_anti_spoofing.FACEBAGNET_SOURCE),
        "encoder": (encoder.encoder, encoder.SOURCE),
    }
    entries = {name: _Entry(partial(_at_opset, write), source) for name, (write, source) in plain.items()}
    for name in (light.PREFIX + network for network in light.NETWORKS):
        entries[name] = _Entry(partial(_light, name), light.source(name))
    return entries


def _light(name: str, batch: int, opset: int | None) -> Skeleton:
    return light.light_network(name, batch=batch, opset=opset)


_CATALOG = _catalog()


def names() -> tuple[str, ...]:
    """Names of all networks that ``build`` knows."""
    return tuple(_CATALOG)


def source(name: str) -> str:
    """Where the architecture of ``name`` comes from."""
    return _entry(name).source


def skeleton(name: str, *, batch: int = 1, opset: int | None = None) -> Skeleton:
    """Write network ``name`` without weight values.

    Raises:
        UsageError: The name is unknown, or the batch size or opset is not possible.
    """
    if batch < 1:
        raise UsageError(f"batch size {batch}: must be at least 1")
    return _entry(name).write(batch, opset)


def build(name: str, *, batch: int = 1, seed: int = 0, opset: int | None = None) -> onnx.ModelProto:
    """Build network ``name`` with random weights; equal arguments give equal bytes.

    Args:
        name: One of ``names()``.
        batch: The leading size of every input and output.
        seed: Seed of the weights, not negative.
        opset: Opset of the model; by default 17, and 9 for the light models.

    Raises:
        UsageError: The name is unknown, or an option is not possible.
        InputError: The installed onnx package lacks the light model.
    """
    if seed < 0:
        raise UsageError(f"seed {seed}: must not be negative")
    return fill(skeleton(name, batch=batch, opset=opset), seed)


def _entry(name: str) -> _Entry:
    if name in _CATALOG:
        return _CATALOG[name]
    near = difflib.get_close_matches(name, _CATALOG, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(_CATALOG)}"
    raise UsageError(f"unknown network {name!r}: {hint}")


def _write_file(model: onnx.ModelProto, path: Path) -> None:
    """Write ``path`` whole or not at all.

    Raises:
        UsageError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(model.SerializeToString(deterministic=True))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _table() -> str:
    """All networks: name, input shapes, parameters, multiply-accumulate operations, source."""
    rows = [("name", "inputs", "parameters", "MACs", "source")]
    for name, entry in _CATALOG.items():
        network = skeleton(name)
        shapes = network.infer_shapes()
        inputs = ["x".join(str(size) for size in shapes[value.name]) for value in network.model.graph.input]
        sizes = f"{len(inputs)} of {inputs[0]}" if len(inputs) > 1 else inputs[0]
        rows.append((name, sizes, _short(parameter_count(network)), _short(mac_count(network)), entry.source))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, sizes, parameters, macs, where in rows:
        cells = (
            name.ljust(widths[0]),
            sizes.ljust(widths[1]),
            parameters.rjust(widths[2]),
            macs.rjust(widths[3]),
        )
        lines.append("  ".join((*cells, where)))
    return "\n".join(lines)


def _short(count: int) -> str:
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.2f} M"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mars-onnx-models", description="Build reference networks with seeded random weights."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="network to build; --list tells which there are")
    parser.add_argument("--all", action="store_true", help="build every network")
    parser.add_argument("--list", action="store_true", help="print a table of the networks and exit")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder that gets NAME.onnx")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default 0)")
    parser.add_argument("--batch", type=int, default=1, help="batch size (default 1)")
    parser.add_argument("--opset", type=int, help="opset (default 17; the light models exist at opset 9 only)")
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.list:
        print(_table())
        return
    if options.all == bool(options.names):
        raise UsageError("give either the names of networks or --all (--list tells which there are)")
    if options.output is None:
        raise UsageError("give the output folder with -o DIR")
    wanted = names() if options.all else tuple(dict.fromkeys(options.names))
    for name in wanted:
        _entry(name)
    for name in wanted:
        model = build(name, batch=options.batch, seed=options.seed, opset=options.opset)
        path = options.output / f"{name}.onnx"
        _write_file(model, path)
        elements = sum(math.prod(tensor.dims) for tensor in model.graph.initializer)
        print(f"{path}: {len(model.graph.node)} nodes, {elements:,} weight elements")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = _parser().parse_args(argv)
    try:
        _run(options)
    except MarsError as error:
        print(f"mars-onnx-models: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
