"""What convolution and pooling share: padding attributes and the number of windows."""

from __future__ import annotations

from collections.abc import Sequence

from mars_onnx.rules.axes import Window
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


def window_count(window: Window, end: int, *, rounded_up: bool = False) -> int:
    """Output extent under padding ``end`` behind the data.

    With ``rounded_up`` (ceil_mode) the last window may be cut short, but windows that begin in the padding at the end
    do not count, as runtimes have it.
    """
    room = window.size + window.pad + end - (window.kernel - 1) * window.dilation - 1
    if room < 0:
        return 0
    extent = (-(-room // window.stride) if rounded_up else room // window.stride) + 1
    return extent - 1 if rounded_up and (extent - 1) * window.stride >= window.size + window.pad else extent
