"""Random models of one operator, for every operator with a rule: shapes, attributes, opsets, forms of operands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mars_onnx.rules.axes import Axis
from tests.rules import generate_arithmetic, generate_movement, generate_rows
from tests.rules.cases import GENERATORS, Case, Rng, pick
from tests.rules.harness import cover

#: Importing these fills GENERATORS.
FAMILIES = (generate_arithmetic, generate_movement, generate_rows)


def random_case(op_type: str, rng: Rng) -> Case:
    """A random node, sometimes of another element type than float32."""
    case = GENERATORS[op_type](op_type, rng)
    floats = [o for o in case.operands if o is not None and (o.values is None or o.values.dtype.kind == "f")]
    plain = all(o.values is None and np.dtype(o.dtype) == np.float32 for o in floats)
    if not plain or rng.random() > 0.15:
        return case
    dtype = np.dtype(str(pick(rng, "float64", "float16", "int32", "int64")))
    case.operands = [replace(o, dtype=dtype) if o is not None and o in floats else o for o in case.operands]
    return case


def random_cuts(axes: Sequence[Axis], rng: Rng) -> dict[str, list[tuple[int, int]]]:
    """Cuts of one, two or sometimes three axes: even or uneven, also with more members than iterations."""
    count = min(len(axes), int(pick(rng, 1, 1, 2, 2, 3)))  # type: ignore[call-overload]
    chosen = [axes[int(i)] for i in rng.permutation(len(axes))[:count]]
    cuts: dict[str, list[tuple[int, int]]] = {}
    for axis in chosen:
        members = int(rng.integers(2, 5))
        step = axis.granularity if rng.random() < 0.7 else 1
        edges = [min(axis.size, int(edge) * step) for edge in rng.integers(0, axis.size // step + 1, members - 1)]
        cuts[axis.name] = cover(axis.size, edges)
    return cuts
