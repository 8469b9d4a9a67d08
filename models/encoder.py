"""A transformer encoder of post-norm blocks (Vaswani et al. 2017), on embeddings."""

import math

import numpy as np

from mars_onnx.errors import UsageError

from .graph_writer import DEFAULT_OPSET, GraphWriter, Skeleton

SOURCE = (
    "Transformer encoder of Vaswani et al., 'Attention is all you need' (2017): post-norm blocks, with the "
    "GELU activation of BERT; widths chosen small"
)
_MIN_OPSET = 17
_GELU_OPSET = 20


def encoder(
    *,
    batch: int = 1,
    opset: int = DEFAULT_OPSET,
    blocks: int = 2,
    sequence: int = 128,
    hidden: int = 256,
    heads: int = 8,
    inner: int = 1024,
) -> Skeleton:
    """Encoder: input ``embeddings`` and output ``encoded``, both (batch, sequence, hidden).

    Each block is self-attention, addition and LayerNormalization, then two projections (``inner`` wide)
    with GELU between them, addition and LayerNormalization. Opset 17 is the first with LayerNormalization;
    GELU is written out with Erf below opset 20.

    Raises:
        UsageError: ``hidden`` is not a multiple of ``heads``, or the opset has no LayerNormalization.
    """
    if hidden % heads:
        raise UsageError(f"encoder: hidden {hidden} is not a multiple of heads {heads}")
    if opset < _MIN_OPSET:
        raise UsageError(f"encoder: needs opset {_MIN_OPSET} or newer (LayerNormalization), got {opset}")
    writer = GraphWriter("encoder", source=SOURCE, opset=opset)
    width = hidden // heads
    writer.constant("attention.split_shape", [batch, sequence, heads, width], np.int64)
    writer.constant("attention.merge_shape", [batch, sequence, hidden], np.int64)
    writer.constant("attention.score_divisor", math.sqrt(width), np.float32)
    if opset < _GELU_OPSET:
        writer.constant("gelu.sqrt_two", math.sqrt(2), np.float32)
        writer.constant("gelu.one", 1.0, np.float32)
        writer.constant("gelu.half", 0.5, np.float32)
    x = writer.input("embeddings", batch, sequence, hidden)
    for index in range(blocks):
        prefix = f"block{index}"
        attended = _attention(writer, x, f"{prefix}.attention", hidden)
        x = writer.add(x, attended, f"{prefix}.add1")
        x = writer.layer_norm(x, f"{prefix}.norm1", hidden)
        y = writer.projection(x, f"{prefix}.mlp.fc1", (hidden, inner))
        y = _gelu(writer, y, f"{prefix}.mlp.gelu")
        y = writer.projection(y, f"{prefix}.mlp.fc2", (inner, hidden))
        x = writer.layer_norm(writer.add(x, y, f"{prefix}.add2"), f"{prefix}.norm2", hidden)
    writer.output(x, "encoded")
    return writer.skeleton()


def _attention(writer: GraphWriter, x: str, name: str, hidden: int) -> str:
    """Multi-head self-attention: (batch, sequence, hidden) to the same shape."""
    split = {}
    # Keys are transposed for the product with the queries: (batch, heads, width, sequence).
    for part, axes in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        y = writer.projection(x, f"{name}.{part}", (hidden, hidden))
        y = writer.node("Reshape", f"{name}.{part}.split", y, "attention.split_shape")
        split[part] = writer.node("Transpose", f"{name}.{part}.transpose", y, perm=axes)
    scores = writer.node("MatMul", f"{name}.scores", split["query"], split["key"])
    scores = writer.node("Div", f"{name}.scale", scores, "attention.score_divisor")
    probabilities = writer.node("Softmax", f"{name}.softmax", scores, axis=-1)
    y = writer.node("MatMul", f"{name}.mix", probabilities, split["value"])
    y = writer.node("Transpose", f"{name}.transpose", y, perm=[0, 2, 1, 3])
    y = writer.node("Reshape", f"{name}.merge", y, "attention.merge_shape")
    return writer.projection(y, f"{name}.output_projection", (hidden, hidden))


def _gelu(writer: GraphWriter, x: str, name: str) -> str:
    """Multiply x by Phi(x), as one node where the opset has it."""
    if writer.opset >= _GELU_OPSET:
        return writer.node("Gelu", name, x)
    y = writer.node("Div", f"{name}.div", x, "gelu.sqrt_two")
    y = writer.add(writer.node("Erf", f"{name}.erf", y), "gelu.one", f"{name}.add")
    return writer.node("Mul", f"{name}.half", writer.node("Mul", f"{name}.mul", x, y), "gelu.half")
