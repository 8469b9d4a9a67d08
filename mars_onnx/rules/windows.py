"""What convolution and pooling share: padding attributes."""

from __future__ import annotations

from collections.abc import Sequence

from mars_onnx.rules.base import Signature


def resolve_pads(
    signature: Signature,
    sizes: Sequence[int],
    results: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...] | None:
    """Padding before and after each spatial dimension, from ``pads`` or ``auto_pad``.

    Returns:
        All begins, then all ends, as in the attribute ``pads``; ``None`` for SAME padding with a stride larger than the
        kernel, where runtimes differ about what it means.
    """
    spatial = len(sizes)
    mode = signature.attribute("auto_pad") or "NOTSET"
    if mode == "NOTSET":
        return signature.integers("pads", (0,) * (2 * spatial))
    if mode == "VALID":
        return (0,) * (2 * spatial)
    begins: list[int] = []
    ends: list[int] = []
    for i in range(spatial):
        if strides[i] > kernel[i]:
            return None
        total = max(0, (results[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - sizes[i])
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        ends.append(total - begins[-1])
    return (*begins, *ends)
