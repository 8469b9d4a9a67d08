"""The networks that are measured: seeded walks through a grid of shapes, so that no real model's layers are looked up.

Kernels are measured inside chains of others, as they run in models: weights come from far caches or memory, activations
are where the kernel before has left them, the layout is the blocked one. Heights, widths and channels are drawn
independently, uneven ones and paddings on one side among them: these are what layers look like after a split.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from mars_onnx.calibration.writer import ModelWriter

#: Heights and widths that walks start from. Wide and flat ones are halves of an image, odd ones have halos.
_IMAGES = (
    *((112, 112), (56, 112), (56, 56), (28, 56), (57, 56), (28, 28), (14, 28), (29, 28), (20, 28), (14, 14)),
    *((7, 14), (8, 14), (7, 7), (4, 7), (3, 7), (112, 56), (224, 112), (40, 40), (96, 96), (10, 10)),
)
_CHANNELS = (16, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 768, 1024, 1536, 2048)
_KERNELS = (1, 1, 1, 1, 3, 3, 3, 3, 3, 5, 7)
#: Bounds of one convolution: multiply-accumulates, weights, elements of its output.
_MOST_MACS, _MOST_WEIGHTS, _MOST_ELEMENTS = 2.5e8, 5e6, 1.7e6
_STEPS = 14
_SEED = 20


def networks(scale: float = 1.0) -> Iterator[onnx.ModelProto]:
    """All networks, in the order in which they are to be measured, always the same.

    Args:
        scale: How many, as a part of the usual number; there is at least one of every family.
    """
    families = (
        (_convolutions, 40),
        (_first_layers, 6),
        (_depthwise, 10),
        (_grouped, 4),
        (_matrices, 14),
        (_vectors, 4),
        (_attention, 8),
        (_elementwise, 8),
        (_images, 8),
    )
    for family, (build, usual) in enumerate(families):
        for number in range(max(1, round(usual * scale))):
            rng = np.random.default_rng((_SEED, family, number))
            writer = ModelWriter(f"{build.__name__.strip('_')}{number}", rng)
            build(writer, number)
            yield writer.model()


def _pick(writer: ModelWriter, choices: list[int]) -> int:
    return int(writer.rng.choice(choices))


def _activated(writer: ModelWriter, x: str, chance: float = 0.8) -> str:
    return writer.same("Relu", x) if writer.rng.random() < chance else x


def _convolutions(writer: ModelWriter, number: int) -> None:
    """A walk of convolutions, some with a residual sum."""
    rng = writer.rng
    rows, cols = _IMAGES[number % len(_IMAGES)]
    fitting = [c for c in _CHANNELS if c <= 512 and c * rows * cols <= _MOST_ELEMENTS]
    x = writer.input(1, _pick(writer, fitting), rows, cols)
    made: list[str] = []
    for _ in range(_STEPS):
        _, own, rows, cols = writer.shapes[x]
        if min(rows, cols) < 3:
            break
        kernel = _pick(writer, list(_KERNELS))
        taps = kernel * kernel
        fitting = [
            c
            for c in _CHANNELS
            if c * rows * cols <= _MOST_ELEMENTS
            and c * own * taps * rows * cols <= _MOST_MACS
            and c * own * taps <= _MOST_WEIGHTS
        ]
        stride = 2 if rng.random() < 0.15 and min(rows, cols) >= 6 else 1
        half = kernel // 2
        one_sided = kernel > 1 and rng.random() < 0.3 and rows > kernel + 2
        pads = ((half, half, 0, half) if rng.random() < 0.5 else (0, half, 0, half)) if one_sided else None
        x = writer.conv(x, _pick(writer, fitting or [16]), (kernel, kernel), stride=stride, pads=pads)
        alike = [other for other in made if writer.shapes[other] == writer.shapes[x]]
        if alike and rng.random() < 0.6:
            x = writer.same("Add", x, alike[-1])
        x = _activated(writer, x)
        made.append(x)
    writer.output(x)


def _first_layers(writer: ModelWriter, number: int) -> None:
    """Convolutions of images with few channels, whole and in strips, with a pooling behind."""
    rows, cols = ((208, 208), (105, 208), (160, 160), (64, 240), (240, 123), (96, 96))[number % 6]
    for kernel, stride, channels in (
        (7, 2, 48),
        (7, 2, 80),
        (3, 1, 48),
        (3, 2, 80),
        (11, 4, 48),
        (5, 1, 16),
        (3, 2, 96),
    ):
        x = writer.conv(writer.input(1, 3, rows, cols), channels, (kernel, kernel), stride=stride)
        x = _max_pool(writer, writer.same("Relu", x), 3, 2, 1)
        writer.output(_max_pool(writer, x, 2, 2, 0))


def _max_pool(writer: ModelWriter, x: str, kernel: int, stride: int, pad: int, op_type: str = "MaxPool") -> str:
    batch, channels, rows, cols = writer.shapes[x]
    shape = (batch, channels, *((extent + 2 * pad - kernel) // stride + 1 for extent in (rows, cols)))
    return writer.node(op_type, [x], shape, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)


def _depthwise(writer: ModelWriter, number: int) -> None:
    """Pointwise and depthwise convolutions in turn."""
    rows, cols = _IMAGES[(2 * number + 1) % len(_IMAGES)]
    x = writer.input(1, 32, rows, cols)
    for _ in range(6):
        _, own, rows, cols = writer.shapes[x]
        if min(rows, cols) < 3:
            break
        fitting = [c for c in _CHANNELS if c * rows * cols <= _MOST_ELEMENTS and c * own * rows * cols <= _MOST_MACS]
        x = _activated(writer, writer.conv(x, _pick(writer, fitting or [16]), (1, 1)))
        kernel = _pick(writer, [3, 3, 3, 5, 7])
        stride = 2 if writer.rng.random() < 0.3 and min(rows, cols) >= 6 else 1
        channels = writer.shapes[x][1]
        x = _activated(writer, writer.conv(x, channels, (kernel, kernel), stride=stride, groups=channels))
    writer.output(x)


def _grouped(writer: ModelWriter, number: int) -> None:
    """Groups of whole blocks, groups that are not, and channels that do not come in fours."""
    rows, cols = ((28, 28), (14, 28), (14, 14), (28, 56))[number % 4]
    for groups, channels, kernel in ((4, 128, 3), (8, 256, 3), (2, 64, 3), (4, 256, 1), (32, 128, 3), (16, 64, 3)):
        writer.output(writer.conv(writer.input(1, channels, rows, cols), channels, (kernel, kernel), groups=groups))
    for own, channels, kernel in ((18, 64, 3), (30, 64, 1), (70, 64, 3)):
        writer.output(writer.conv(writer.input(1, own, rows, cols), channels, (kernel, kernel)))


def _matrices(writer: ModelWriter, number: int) -> None:
    """Products with weights; rows and columns as a whole layer or a split one has."""
    rows = (128, 64, 32, 197, 99, 16, 256, 48, 8, 77, 12, 384, 150, 100)[number % 14]
    widths = [64, 128, 192, 256, 320, 384, 512, 640, 768, 1024, 1536, 2048, 3072]
    x = writer.input(1, rows, _pick(writer, widths))
    for _ in range(7):
        own = writer.shapes[x][-1]
        fitting = [w for w in widths if w * own <= 4e6 and w * own * rows <= 4e8]
        y = writer.matmul(x, _pick(writer, fitting))
        draw = writer.rng.random()
        if draw < 0.3:
            y = writer.same("Gelu", y)
        elif draw < 0.6:
            width = writer.shapes[y][-1]
            y = writer.same("LayerNormalization", y, writer.weight(width), writer.weight(width), axis=-1)
        elif draw < 0.85:
            width = writer.shapes[y][-1]
            y = writer.same("Add", y, writer.input(*writer.shapes[y]))
            y = writer.same("LayerNormalization", y, writer.weight(width), writer.weight(width), axis=-1)
        x = y
    writer.output(x)


def _vectors(writer: ModelWriter, number: int) -> None:
    """Products of one row: fully connected layers of one image."""
    x = writer.input(1, (512, 2048, 4096, 1280)[number % 4])
    for _ in range(6):
        own = writer.shapes[x][1]
        width = _pick(writer, [w for w in (128, 250, 500, 1000, 2000, 4096) if w * own <= 1.7e7])
        x = writer.node("Gemm", [x, writer.weight(width, own), writer.weight(width)], (1, width), transB=1)
        x = _activated(writer, x, 0.5)
    writer.output(x)


def _attention(writer: ModelWriter, number: int) -> None:
    """Heads of attention: products of activations, transposes, softmax."""
    length = (120, 60, 197, 250, 36, 96, 380, 50)[number % 8]
    for heads, width in ((10, 64), (5, 64), (12, 32), (3, 128)):
        if heads * length * length > 2e6:
            continue
        flat = writer.input(1, length, heads * width)
        shape = writer.constant(np.asarray([1, length, heads, width], np.int64))
        parts = []
        for axes, dims in (((0, 2, 1, 3), (length, width)), ((0, 2, 3, 1), (width, length))):
            split = writer.node("Reshape", [flat, shape], (1, length, heads, width))
            parts.append(writer.node("Transpose", [split], (1, heads, *dims), perm=list(axes)))
        scores = writer.node("MatMul", [parts[0], parts[1]], (1, heads, length, length))
        scores = writer.same("Div", scores, writer.constant(np.asarray(8.0, np.float32)))
        weights = writer.same("Softmax", scores, axis=-1)
        mixed = writer.node("MatMul", [weights, parts[0]], (1, heads, length, width))
        writer.output(writer.node("Transpose", [mixed], (1, length, heads, width), perm=[0, 2, 1, 3]))


def _elementwise(writer: ModelWriter, number: int) -> None:
    """Element by element, reductions, normalisations and copies, on plain tensors of one size."""
    rows, cols = ((120, 480), (60, 480), (197, 768), (50, 2048), (800, 128), (3200, 64), (200, 1024), (3200, 256))[
        number % 8
    ]
    x, y = writer.input(1, rows, cols), writer.input(1, rows, cols)
    one = writer.input(cols)
    for op_type in ("Add", "Mul", "Sub"):
        writer.output(writer.same(op_type, x, y))
    writer.output(writer.same("Mul", x, one))
    for op_type in ("Relu", "LeakyRelu", "Neg", "Abs"):
        writer.output(writer.same(op_type, x))
    for op_type in ("Sigmoid", "Tanh", "Gelu", "Erf", "Exp"):
        writer.output(writer.same(op_type, x))
    writer.output(writer.same("Softmax", x, axis=-1))
    writer.output(writer.same("LayerNormalization", x, writer.weight(cols), writer.weight(cols), axis=-1))
    axes = writer.constant(np.asarray([-1], np.int64))
    for op_type in ("ReduceMean", "ReduceSum", "ReduceMax"):
        writer.output(writer.node(op_type, [x, axes], (1, rows, 1), keepdims=1))
    writer.output(writer.node("Transpose", [x], (1, cols, rows), perm=[0, 2, 1]))
    writer.output(writer.node("Concat", [x, y], (1, 2 * rows, cols), axis=1))
    ends = [writer.constant(np.asarray([value], np.int64)) for value in (0, rows // 2, 1)]
    writer.output(writer.node("Slice", [x, *ends], (1, rows // 2, cols)))
    image = writer.node("Reshape", [x, writer.constant(np.asarray([1, cols, rows, 1], np.int64))], (1, cols, rows, 1))
    scales = [writer.constant(writer.rng.random(cols, dtype=np.float32) + 0.5) for _ in range(4)]
    writer.output(writer.same("BatchNormalization", image, *scales))


def _images(writer: ModelWriter, number: int) -> None:
    """Pooling of all kinds behind convolutions, and transposed convolutions."""
    rows, cols = ((108, 110), (54, 108), (54, 54), (27, 54), (26, 26), (14, 26), (13, 13), (7, 13))[number % 8]
    for channels in (64, 224, 128):
        x = writer.same("Relu", writer.conv(writer.input(1, 32, rows, cols), channels, (1, 1)))
        writer.output(_max_pool(writer, x, 2, 2, 0))
        writer.output(_max_pool(writer, x, 3, 2, 1))
        writer.output(_max_pool(writer, x, 3, 1, 1))
        writer.output(_max_pool(writer, x, 3, 1, 1, "AveragePool"))
        writer.output(writer.node("GlobalAveragePool", [x], (1, channels, 1, 1)))
    for own, channels in ((64, 32), (32, 64)):
        x = writer.input(1, own, rows, cols)
        shape = (1, channels, 2 * rows, 2 * cols)
        kernel = writer.weight(own, channels, 2, 2)
        writer.output(writer.node("ConvTranspose", [x, kernel], shape, kernel_shape=[2, 2], strides=[2, 2]))
