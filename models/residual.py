"""ResNet-18/34/50/101 and Wide ResNet-50-2, with BatchNormalization nodes (not folded).

Input (batch, 3, 224, 224), output logits (batch, 1000). The strided convolution of a bottleneck is the 3x3
one, as in torchvision ("ResNet v1.5").
"""

from collections.abc import Callable
from typing import NamedTuple

from .graph_writer import GraphWriter, Skeleton

RESNET_SOURCE = (
    "{title} of He et al., 'Deep residual learning for image recognition' (CVPR 2016), with the strides of torchvision"
)
WIDE_RESNET_SOURCE = (
    "{title} of Zagoruyko and Komodakis, 'Wide residual networks' (BMVC 2016), with the layer sizes of torchvision"
)


class Variant(NamedTuple):
    """One network of the family.

    Attributes:
        title: Its name in the literature.
        depths: Number of blocks in each of the four stages.
        bottleneck: Three convolutions per block (1x1, 3x3, 1x1) rather than two.
        width_factor: How much wider than the original the inner convolutions of a bottleneck are.
    """

    title: str
    depths: tuple[int, int, int, int]
    bottleneck: bool
    width_factor: int = 1


VARIANTS = {
    "resnet18": Variant("ResNet-18", (2, 2, 2, 2), bottleneck=False),
    "resnet34": Variant("ResNet-34", (3, 4, 6, 3), bottleneck=False),
    "resnet50": Variant("ResNet-50", (3, 4, 6, 3), bottleneck=True),
    "resnet101": Variant("ResNet-101", (3, 4, 23, 3), bottleneck=True),
    "wideresnet50_2": Variant("Wide ResNet-50-2", (3, 4, 6, 3), bottleneck=True, width_factor=2),
}


def source(name: str) -> str:
    """Where the architecture of variant ``name`` comes from."""
    variant = VARIANTS[name]
    template = WIDE_RESNET_SOURCE if variant.width_factor > 1 else RESNET_SOURCE
    return template.format(title=variant.title)


def residual_network(name: str, *, batch: int, opset: int) -> Skeleton:
    """Build the variant called ``name``."""
    variant = VARIANTS[name]
    writer = GraphWriter(name, source=source(name), opset=opset)
    x = stem(writer, writer.input("image", batch, 3, 224, 224))
    channels = 64
    for stage, depth in enumerate(variant.depths):
        width = 64 * 2**stage
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            prefix = f"layer{stage + 1}.{block}"
            if variant.bottleneck:
                inner = width * variant.width_factor
                x = bottleneck_block(writer, x, prefix, (channels, inner, 4 * width), stride)
                channels = 4 * width
            else:
                x = basic_block(writer, x, prefix, (channels, width), stride)
                channels = width
    x = writer.flatten(writer.global_average_pool(x, "avgpool"), "flatten")
    writer.output(writer.linear(x, "fc", (channels, 1000)), "logits")
    return writer.skeleton()


def stem(writer: GraphWriter, x: str, prefix: str = "") -> str:
    """7x7 convolution with stride 2 and 3x3 max pooling: (N, 3, H, W) to (N, 64, H/4, W/4)."""
    x = writer.conv_bn(x, (f"{prefix}conv1", f"{prefix}bn1"), (3, 64), kernel=7, stride=2)
    return writer.max_pool(writer.relu(x, f"{prefix}relu"), f"{prefix}maxpool", kernel=3, stride=2, padding=1)


def basic_block(writer: GraphWriter, x: str, prefix: str, channels: tuple[int, int], stride: int) -> str:
    """Two 3x3 convolutions around a shortcut: ``channels`` in and out."""
    y = writer.conv_bn(x, (f"{prefix}.conv1", f"{prefix}.bn1"), channels, kernel=3, stride=stride)
    y = writer.relu(y, f"{prefix}.relu1")
    y = writer.conv_bn(y, (f"{prefix}.conv2", f"{prefix}.bn2"), (channels[1], channels[1]), kernel=3)
    return join_shortcut(writer, x, y, prefix, channels, stride)


def bottleneck_block(
    writer: GraphWriter,
    x: str,
    prefix: str,
    channels: tuple[int, int, int],
    stride: int,
    *,
    groups: int = 1,
    reweigh: Callable[[str], str] | None = None,
) -> str:
    """1x1, 3x3 and 1x1 convolution around a shortcut: ``channels`` in, inside and out.

    Args:
        writer: Where to add the nodes.
        x: The input tensor.
        prefix: Prefix of all node names.
        channels: Number of channels in, inside and out.
        stride: Stride of the 3x3 convolution.
        groups: Groups of the 3x3 convolution.
        reweigh: What to apply to the branch before it is added, such as channel attention.
    """
    before, inner, after = channels
    y = writer.conv_bn(x, (f"{prefix}.conv1", f"{prefix}.bn1"), (before, inner), kernel=1)
    y = writer.relu(y, f"{prefix}.relu1")
    y = writer.conv_bn(y, (f"{prefix}.conv2", f"{prefix}.bn2"), (inner, inner), kernel=3, stride=stride, groups=groups)
    y = writer.relu(y, f"{prefix}.relu2")
    y = writer.conv_bn(y, (f"{prefix}.conv3", f"{prefix}.bn3"), (inner, after), kernel=1)
    if reweigh is not None:
        y = reweigh(y)
    return join_shortcut(writer, x, y, prefix, (before, after), stride)


def join_shortcut(writer: GraphWriter, x: str, branch: str, prefix: str, channels: tuple[int, int], stride: int) -> str:
    """Add ``x`` to ``branch``, through a 1x1 convolution where the shapes differ, and rectify."""
    if stride != 1 or channels[0] != channels[1]:
        names = (f"{prefix}.downsample.0", f"{prefix}.downsample.1")
        x = writer.conv_bn(x, names, channels, kernel=1, stride=stride)
    return writer.relu(writer.add(branch, x, f"{prefix}.add"), f"{prefix}.relu")
