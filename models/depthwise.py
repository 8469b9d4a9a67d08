"""MobileNet: depthwise and pointwise convolutions in turn.

Input (batch, 3, 224, 224), output logits (batch, 1000). BatchNormalization nodes are not folded.
"""

from .graph_writer import GraphWriter, Skeleton

SOURCE = (
    "MobileNet (width 1.0) of Howard et al., 'MobileNets: efficient convolutional neural networks for mobile vision "
    "applications' (2017)"
)
#: Channels and stride of every block.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)


def mobilenet(*, batch: int, opset: int) -> Skeleton:
    """MobileNet version 1; 4,231,976 parameters."""
    writer = GraphWriter("mobilenet", source=SOURCE, opset=opset)
    x = writer.input("image", batch, 3, 224, 224)
    x = writer.conv_bn(x, ("conv1", "bn1"), (3, 32), kernel=3, stride=2)
    x, channels = writer.relu(x, "relu1"), 32
    for number, (wider, stride) in enumerate(_BLOCKS, start=2):
        own = (channels, channels)
        names = (f"conv{number}.depthwise", f"bn{number}.depthwise")
        x = writer.conv_bn(x, names, own, kernel=3, stride=stride, groups=channels)
        x = writer.relu(x, f"relu{number}.depthwise")
        x = writer.conv_bn(x, (f"conv{number}.pointwise", f"bn{number}.pointwise"), (channels, wider), kernel=1)
        x, channels = writer.relu(x, f"relu{number}.pointwise"), wider
    x = writer.flatten(writer.global_average_pool(x, "avgpool"), "flatten")
    writer.output(writer.linear(x, "fc", (channels, 1000)), "logits")
    return writer.skeleton()
