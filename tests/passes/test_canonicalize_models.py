"""canonicalize on whole networks: the light models that the onnx package ships, with random weights."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from mars_onnx.stages.canonical import verify_canonical
from mars_passes.canonicalize import Canonicalize
from tests.passes.canonicalizing import opaque_values
from tests.passes.onnx_text import run

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


def with_random_weights(name: str) -> ir.Model:
    """Replace what ConstantOfShape makes, the same number everywhere, by random weights."""
    found = ir.load(LIGHT / f"light_{name}.onnx")
    random = np.random.default_rng(0)
    for node in list(found.graph):
        if node.op_type == "ConstantOfShape":
            assert node.inputs[0] is not None
            assert node.inputs[0].const_value is not None
            shape = [int(size) for size in node.inputs[0].const_value.numpy()]
            (old,) = node.outputs
            # Small, so that deep networks do not overflow; positive, for variances.
            weight = random.uniform(0.5, 1.5, shape).astype(np.float32)
            if len(shape) > 1:
                weight = ((weight - 1) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
            value_name, old.name = old.name, f"{old.name}_old"
            value = ir.Value(name=value_name, const_value=ir.tensor(weight, name=value_name))
            value.shape, value.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
            found.graph.register_initializer(value)
            old.replace_all_uses_with(value)
            found.graph.remove(node)
    return found


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet",
        "shufflenet",
        "inception_v2",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("densenet121", marks=pytest.mark.slow),
        pytest.param("inception_v1", marks=pytest.mark.slow),
        pytest.param("zfnet512", marks=pytest.mark.slow),
    ],
)
def test_network(name: str) -> None:
    found = with_random_weights(name)
    # Initializers are inputs here (IR 3); a session takes their default values.
    original = ir.from_proto(ir.to_proto(found))
    original.ir_version = 8
    Canonicalize()(found)
    assert verify_canonical(found) == []
    assert opaque_values(found) == []
    assert not Canonicalize()(found).modified
    feeds, outputs = run(found)
    _, wanted = run(original, feeds)
    for one, other in zip(outputs, wanted, strict=True):
        assert np.std(other) > 0
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
