"""What a test of canonicalize always asks for."""

import textwrap

import numpy as np
import onnx_ir as ir

from mars_onnx.stages.canonical import static_shape, verify_canonical
from mars_passes.canonicalize import Canonicalize
from tests.passes.onnx_text import Shapes, run, text

NORMALIZATION: Shapes = {"s": (4,), "b": (4,), "m": (4,), "v": (4,)}


def opaque_values(model: ir.Model) -> list[str | None]:
    """Names of the values of the main graph whose shape is not known, in the order in which they are computed."""
    return [value.name for node in model.graph for value in node.outputs if value.name and static_shape(value) is None]


def check(found: ir.Model, expected: str | None = None, tolerance: float = 1e-5, **options: object) -> ir.Model:
    """Canonicalize; compare text and numbers; canonicalize again, which must change nothing."""
    original = found.clone(deep_copy=True)
    pass_ = Canonicalize(**options)  # type: ignore[arg-type]
    assert pass_(found).modified
    assert verify_canonical(found) == []
    if expected is not None:
        assert text(found) == textwrap.dedent(expected).strip()
    feeds, wanted = run(found)
    _, outputs = run(original, feeds)
    for one, other in zip(wanted, outputs, strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)
    before = ir.to_proto(found).SerializeToString()
    assert not pass_(found).modified
    assert ir.to_proto(found).SerializeToString() == before
    return found
