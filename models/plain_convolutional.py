"""AlexNet and VGG-16: plain stacks of convolutions and fully connected layers.

Input (batch, 3, 224, 224), output logits (batch, 1000). Dropout is the identity at inference and left out.
"""

from .graph_writer import GraphWriter, Skeleton

ALEXNET_SOURCE = (
    "AlexNet, the one-tower variant of Krizhevsky, 'One weird trick for parallelizing convolutional neural "
    "networks' (2014), with the layer sizes of torchvision"
)
VGG16_SOURCE = (
    "VGG-16 (configuration D) of Simonyan and Zisserman, 'Very deep convolutional networks for large-scale "
    "image recognition' (2015), without batch normalisation, as in torchvision"
)


def alexnet(*, batch: int, opset: int) -> Skeleton:
    """AlexNet, one tower, no local response normalisation; 61,100,840 parameters."""
    writer = GraphWriter("alexnet", source=ALEXNET_SOURCE, opset=opset)
    x = writer.input("image", batch, 3, 224, 224)
    # (input channels, output channels), kernel, stride, padding, followed by pooling
    layers = (
        ((3, 64), 11, 4, 2, True),
        ((64, 192), 5, 1, 2, True),
        ((192, 384), 3, 1, 1, False),
        ((384, 256), 3, 1, 1, False),
        ((256, 256), 3, 1, 1, True),
    )
    for index, (channels, kernel, stride, padding, pool) in enumerate(layers, start=1):
        x = writer.conv(x, f"conv{index}", channels, kernel, stride=stride, padding=padding, bias=True)
        x = writer.relu(x, f"relu{index}")
        if pool:
            x = writer.max_pool(x, f"pool{index}", kernel=3, stride=2)
    writer.output(_classifier(writer, x, 256 * 6 * 6, first=6), "logits")
    return writer.skeleton()


def vgg16(*, batch: int, opset: int) -> Skeleton:
    """VGG-16: thirteen convolutions in five blocks, three fully connected layers; 138,357,544 parameters."""
    writer = GraphWriter("vgg16", source=VGG16_SOURCE, opset=opset)
    x = writer.input("image", batch, 3, 224, 224)
    channels = 3
    for block, (depth, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
        for layer in range(1, depth + 1):
            x = writer.conv(x, f"conv{block}_{layer}", (channels, width), kernel=3, bias=True)
            x = writer.relu(x, f"relu{block}_{layer}")
            channels = width
        x = writer.max_pool(x, f"pool{block}", kernel=2, stride=2)
    writer.output(_classifier(writer, x, 512 * 7 * 7, first=6), "logits")
    return writer.skeleton()


def _classifier(writer: GraphWriter, x: str, features: int, *, first: int) -> str:
    """Three fully connected layers, 4096, 4096 and 1000 wide; the first is ``fc<first>``."""
    x = writer.flatten(x, "flatten")
    for index, width in ((first, 4096), (first + 1, 4096)):
        x = writer.relu(writer.linear(x, f"fc{index}", (features, width)), f"relu{index}")
        features = width
    return writer.linear(x, f"fc{first + 2}", (features, 1000))
