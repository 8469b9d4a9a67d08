"""Faults planted in the rules: the harness must catch every one, or it would not catch a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from mars_onnx.geometry import Reduction
from mars_onnx.rules import pooling, reductions, registry
from mars_onnx.rules.axes import Along, AxisRange, Ranges, Window
from mars_onnx.rules.base import LocalGraph, OpRule, Share
from mars_onnx.rules.convolution import ConvRule, GroupedChannels
from mars_onnx.rules.gathering import GatherRule
from mars_onnx.rules.matmul import GemmRule
from mars_onnx.rules.normalization import LocalResponseRule
from mars_onnx.rules.pooling import GlobalAverageRule
from mars_onnx.rules.reshape import Factor
from mars_onnx.rules.slicing import PadRule, Strided
from mars_onnx.rules.transposed_convolution import TransposedWindow
from tests.rules.harness import Cuts, check_rule

CONVOLUTION = (
    "(float[1,4,8,8] x, float[4,4,3,3] w, float[4] b) => (float[1,4,8,8] y) {y = Conv<pads=[1,1,1,1]>(x, w, b)}"
)
GROUPS = "(float[1,6,4,4] x, float[4,3,1,1] w) => (float[1,4,4,4] y) {y = Conv<group=2>(x, w)}"
MAXIMUM = "(float[2,8] x) => (float[2,1] y) <int64[1] a = {1}> {y = ReduceMax(x, a)}"
MEAN = "(float[2,8] x) => (float[2,1] y) <int64[1] a = {1}> {y = ReduceMean(x, a)}"
PRODUCT = "(float[2,8] x, float[8,4] w, float[4] b) => (float[2,4] y) {y = Gemm(x, w, b)}"
POOL = "(float[1,2,8,8] x) => (float[1,2,8,8] y) {y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)}"
AVERAGE = "(float[1,2,8,8] x) => (float[1,2,1,1] y) {y = GlobalAveragePool(x)}"
RESHAPE = "(float[4,6] x) => (float[24] y) <int64[1] s = {24}> {y = Reshape(x, s)}"
NEIGHBOURS = "(float[1,8,2,2] x) => (float[1,8,2,2] y) {y = LRN<size=3, alpha=0.9>(x)}"
PADDING = "(float[4,4] x) => (float[7,4] y) <int64[4] p = {2,0,1,0}> {y = Pad(x, p)}"
STEPS = (
    "(float[9,4] x) => (float[4,4] y) <int64[1] b = {1}, int64[1] e = {9}, int64[1] a = {0}, int64[1] s = {2}> "
    "{y = Slice(x, b, e, a, s)}"
)
TRANSPOSED = "(float[1,2,4,4] x, float[2,2,3,3] w) => (float[1,2,9,9] y) {y = ConvTranspose<strides=[2,2]>(x, w)}"
TABLE = "(float[8,4] x, int64[6] i) => (float[6,4] y) {y = Gather(x, i)}"
HALVES: Cuts = {"H": [(0, 4), (4, 8)]}


def short_window(self: Window, ranges: Ranges) -> AxisRange:
    start, stop = self.unclipped(ranges)
    return np.clip(start, 0, self.size), np.clip(stop - 1, 0, self.size)


def shifted_window(self: Window, ranges: Ranges) -> AxisRange:
    start, stop = self.unclipped(ranges)
    wrong = np.where(start > 0, 1, 0)
    return np.clip(start - wrong, 0, self.size), np.clip(stop - wrong, 0, self.size)


def unclipped_pads(self: Window, low: int, high: int, first: int, last: int) -> tuple[int, int]:
    return self.pad, self.pad


def wrong_groups(self: GroupedChannels, ranges: Ranges) -> AxisRange:
    return np.asarray(0), np.asarray(self.inputs_per_group)


def unlucky_factor(self: Factor, ranges: Ranges) -> AxisRange:
    low, high = ranges[self.axis]
    return low // self.inner * 0, (high - low) // self.inner + low * 0


def strided_from_zero(self: Strided, ranges: Ranges) -> AxisRange:
    low, high = ranges[self.axis]
    return low * self.step, (high - 1) * self.step + 1


def late_transposed(self: TransposedWindow, ranges: Ranges) -> AxisRange:
    low, high = ranges[self.axis]
    return np.clip((low + self.pad) // self.stride, 0, self.size), np.clip((high - 1) // self.stride + 1, 0, self.size)


def always_first(kind: type[OpRule]) -> Any:
    original = kind.local

    def local(self: OpRule, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> Any:
        return original(self, graph, replace(share, first=True), inputs)

    return local


def node_alone(self: OpRule, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> Any:
    """The local node without what the rule does around it."""
    kinds = [graph.op(self.signature.op_type, inputs, dict(self.signature.attributes), self.signature.outputs)]
    (value,) = kinds[0]
    value.shape = ir.Shape(share.output_shape())
    return kinds[0]


def padded_twice(self: PadRule, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> Any:
    widths = graph.constant(np.asarray([width for side in zip(*self.pads, strict=True) for width in side], np.int64))
    return graph.op("Pad", [inputs[0], widths], {}, [replace(self.signature.output(), shape=share.output_shape())])


def unmasked(self: GatherRule, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> Any:
    data, indices = inputs[:2]
    kind = replace(self.signature.output(), shape=share.output_shape())
    rows = graph.op("Mod", [indices, graph.constant(np.asarray(share.extent("V")))], {}, [self.signature.input(1)])
    return graph.op("Gather", [data, *rows], {}, [kind])


def uncropped(self: LocalResponseRule, graph: LocalGraph, share: Share, inputs: Sequence[ir.Value | None]) -> Any:
    data = inputs[0]
    assert data is not None
    shape = share.output_shape()
    kind = self.signature.output()
    (wide,) = graph.op("LRN", [data], dict(self.signature.attributes), [replace(kind, shape=data.shape.numpy())])  # type: ignore[union-attr]
    return (graph.slice(wide, tuple((0, extent) for extent in shape)),)


FAULTS: Mapping[str, tuple[Any, str, Any, str, Cuts]] = {
    "short window": (Window, "__call__", short_window, CONVOLUTION, HALVES),
    "shifted window": (Window, "__call__", shifted_window, CONVOLUTION, HALVES),
    "unclipped pads of a convolution": (Window, "pads", unclipped_pads, CONVOLUTION, HALVES),
    "unclipped pads of a pooling": (Window, "pads", unclipped_pads, POOL, HALVES),
    "bias on every member": (ConvRule, "local", always_first(ConvRule), CONVOLUTION, {"Cin": [(0, 2), (2, 4)]}),
    "addend on every member": (GemmRule, "local", always_first(GemmRule), PRODUCT, {"K": [(0, 4), (4, 8)]}),
    "wrong group": (GroupedChannels, "__call__", wrong_groups, GROUPS, {"Cout": [(0, 2), (2, 4)]}),
    "wrong combination": (
        reductions,
        "_COMBINING",
        reductions._COMBINING | {"ReduceMax": Reduction.SUM},
        MAXIMUM,
        {"C": [(0, 4), (4, 8)]},
    ),
    "means that are not weighted": (reductions.ReduceRule, "local", node_alone, MEAN, {"C": [(0, 2), (2, 8)]}),
    "averages that are not weighted": (GlobalAverageRule, "local", node_alone, AVERAGE, {"H": [(0, 2), (2, 8)]}),
    "wrong factor of a reshape": (Factor, "__call__", unlucky_factor, RESHAPE, {"D0": [(0, 12), (12, 24)]}),
    "step from the wrong start": (Strided, "__call__", strided_from_zero, STEPS, {"N": [(0, 2), (2, 4)]}),
    "transposed window too late": (TransposedWindow, "__call__", late_transposed, TRANSPOSED, {"H": [(0, 4), (4, 9)]}),
    "lookup without a mask": (GatherRule, "local", unmasked, TABLE, {"V": [(0, 4), (4, 8)]}),
    "neighbours not cut off": (LocalResponseRule, "local", uncropped, NEIGHBOURS, {"C": [(0, 4), (4, 8)]}),
    "padding on every member": (PadRule, "local", padded_twice, PADDING, {"N": [(0, 3), (3, 7)]}),
    "concat offset forgotten": (
        Along,
        "__call__",
        lambda self, ranges: ranges[self.axis],
        "(float[2,4] x, float[2,4] z) => (float[2,8] y) {y = Concat<axis=1>(x, z)}",
        {"C": [(0, 4), (4, 8)]},
    ),
    "count of pooling windows": (pooling, "window_count", lambda *_, **__: 8, POOL, {"H": [(0, 3), (3, 8)]}),
}

#: How a wrong rule shows: in values, in declared shapes, or in a local model that is none. Anything else would be a
#: mistake in the planted fault itself.
CAUGHT = (
    AssertionError,
    onnx.shape_inference.InferenceError,
    ort_errors.InvalidArgument,
)

#: Changes that must make no difference, so that the test of the faults is not passed by an always failing harness.
HARMLESS = {"count of pooling windows"}


@pytest.fixture(autouse=True)
def _fresh_rules() -> Any:
    registry.rule_for.cache_clear()
    yield
    registry.rule_for.cache_clear()


def run(text: str, cuts: Cuts) -> None:
    feeds = {"i": np.asarray([0, 5, -1, 3, 7, 4])} if text == TABLE else {}
    check_rule(f"g {text}", cuts, np.random.default_rng(3), feeds)


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target, name, wrong, text, cuts = FAULTS[fault]
    run(text, cuts)
    registry.rule_for.cache_clear()
    monkeypatch.setattr(target, name, wrong)
    if fault in HARMLESS:
        run(text, cuts)
        return
    with pytest.raises(CAUGHT):
        run(text, cuts)
