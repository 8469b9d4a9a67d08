"""CASIA-SURF and FaceBagNet: three trunks, one per modality (RGB, depth, infrared), joined late.

Both have the graph inputs ``rgb``, ``depth`` and ``infrared`` and end in two logits: spoof and live. The
papers give the outline; the details are reconstructed, as told at each network, so that parameter counts
are not the published ones. In both, depth and infrared are taken as three-channel images. Channel attention
is squeeze-and-excitation (Hu et al., CVPR 2018) with reduction 16; its fully connected layers are 1x1
convolutions on the pooled (N, C, 1, 1) tensor, which is the same function.
"""

from .graph_writer import GraphWriter, Skeleton
from .residual import basic_block, bottleneck_block, stem

MODALITIES = ("rgb", "depth", "infrared")
CASIA_SURF_SOURCE = (
    "Multi-modal fusion network with squeeze-and-excitation fusion of Zhang et al., 'A dataset and benchmark "
    "for large-scale multi-modal face anti-spoofing' (CVPR 2019), on ResNet-18; details reconstructed"
)
FACEBAGNET_SOURCE = (
    "FaceBagNet of Shen, Huang and Tong, 'FaceBagNet: bag-of-local-features model for multi-modal face "
    "anti-spoofing' (CVPR workshops 2019), on 48x48 patches; the blocks are reconstructed"
)
_REDUCTION = 16
_CARDINALITY = 32


def casia_surf(*, batch: int, opset: int) -> Skeleton:
    """Fusion network of the CASIA-SURF benchmark: three inputs (batch, 3, 112, 112), output (batch, 2).

    From the paper's outline: ResNet-18 split into res1 to res5; res1 (the stem), res2 and res3 per
    modality, channel attention per modality, concatenation, then shared res4 and res5, global average
    pooling and the classifier. Reconstructed: the input size and channels, the reduction of the attention,
    and that the first block of res4 takes the 3 * 128 concatenated channels directly.
    """
    writer = GraphWriter("casia_surf", source=CASIA_SURF_SOURCE, opset=opset)
    branches = []
    for modality in MODALITIES:
        x = stem(writer, writer.input(modality, batch, 3, 112, 112), f"{modality}.")
        x = _basic_stage(writer, x, f"{modality}.res2", (64, 64), stride=1)
        x = _basic_stage(writer, x, f"{modality}.res3", (64, 128), stride=2)
        branches.append(squeeze_excitation(writer, x, f"{modality}.attention", 128))
    x = writer.node("Concat", "fusion", *branches, axis=1)
    x = _basic_stage(writer, x, "res4", (3 * 128, 256), stride=2)
    x = _basic_stage(writer, x, "res5", (256, 512), stride=2)
    _classify(writer, x, 512)
    return writer.skeleton()


def facebagnet(*, batch: int, opset: int) -> Skeleton:
    """FaceBagNet on patches: three inputs (batch, 3, 48, 48), output (batch, 2).

    From the paper's outline: one patch per modality, three residual trunks whose features are concatenated
    (res3 level), shared residual blocks, global average pooling and the classifier. Modal feature erasing
    is a training measure and has no node here. Reconstructed: the trunks as SE-ResNeXt stages (two blocks
    of cardinality 32 with 64, 128 and 256 channels) behind a 3x3 stem without pooling, channel attention
    per modality before the concatenation, and shared stages of two basic blocks with 256 and 512 channels.
    """
    writer = GraphWriter("facebagnet", source=FACEBAGNET_SOURCE, opset=opset)
    branches = []
    for modality in MODALITIES:
        x = writer.input(modality, batch, 3, 48, 48)
        x = writer.conv_bn(x, (f"{modality}.conv1", f"{modality}.bn1"), (3, 64), kernel=3, stride=2)
        x = writer.relu(x, f"{modality}.relu")
        x = _aggregated_stage(writer, x, f"{modality}.res1", (64, 64), stride=1)
        x = _aggregated_stage(writer, x, f"{modality}.res2", (64, 128), stride=2)
        x = _aggregated_stage(writer, x, f"{modality}.res3", (128, 256), stride=2)
        branches.append(squeeze_excitation(writer, x, f"{modality}.attention", 256))
    x = writer.node("Concat", "fusion", *branches, axis=1)
    x = _basic_stage(writer, x, "res4", (3 * 256, 256), stride=2)
    x = _basic_stage(writer, x, "res5", (256, 512), stride=1)
    _classify(writer, x, 512)
    return writer.skeleton()


def squeeze_excitation(writer: GraphWriter, x: str, name: str, channels: int) -> str:
    """Weigh each channel of (N, channels, H, W) by a factor in (0, 1) computed from all of them."""
    inner = channels // _REDUCTION
    y = writer.global_average_pool(x, f"{name}.squeeze")
    y = writer.conv(y, f"{name}.fc1", (channels, inner), kernel=1, bias=True)
    y = writer.relu(y, f"{name}.relu")
    y = writer.conv(y, f"{name}.fc2", (inner, channels), kernel=1, bias=True)
    y = writer.node("Sigmoid", f"{name}.sigmoid", y)
    return writer.node("Mul", f"{name}.scale", x, y)


def _basic_stage(writer: GraphWriter, x: str, prefix: str, channels: tuple[int, int], stride: int) -> str:
    """Two basic blocks of ResNet-18."""
    x = basic_block(writer, x, f"{prefix}.0", channels, stride)
    return basic_block(writer, x, f"{prefix}.1", (channels[1], channels[1]), 1)


def _aggregated_stage(writer: GraphWriter, x: str, prefix: str, channels: tuple[int, int], stride: int) -> str:
    """Two SE-ResNeXt blocks: bottlenecks with a grouped 3x3 convolution and channel attention."""
    before, width = channels
    for index in range(2):
        block = f"{prefix}.{index}"

        def reweigh(y: str, block: str = block) -> str:
            return squeeze_excitation(writer, y, f"{block}.attention", width)

        inner_stride = stride if index == 0 else 1
        sizes = (before, width, width)
        x = bottleneck_block(writer, x, block, sizes, inner_stride, groups=_CARDINALITY, reweigh=reweigh)
        before = width
    return x


def _classify(writer: GraphWriter, x: str, channels: int) -> None:
    x = writer.flatten(writer.global_average_pool(x, "avgpool"), "flatten")
    writer.output(writer.linear(x, "fc", (channels, 2)), "logits")
