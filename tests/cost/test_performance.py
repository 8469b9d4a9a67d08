"""Performance models: the interface, the roofline, and workloads from rules."""

import tomllib
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_onnx.cost import OpClass, Workload, op_class, performance_model, workload
from mars_onnx.cost.performance import _OWN
from mars_onnx.errors import InputError
from mars_onnx.pool import Accelerator, Design, KernelGain, Parameters, RooflineParameters, load_pool, shipped_pools
from mars_onnx.pool.parameters import ENTRY_POINTS, own_models
from mars_onnx.rules.base import OpRule, Signature, TensorType
from mars_onnx.rules.registry import rule_for


def accelerator(bandwidth: float = 1e10) -> Accelerator:
    return Accelerator(0, "a", "npu", (), 2**30, bandwidth)


def design(
    macs: float = 100,
    clock: float = 1e8,
    overhead: float = 0.0,
    bits: int | None = None,
    gains: tuple[KernelGain, ...] = (),
) -> Design:
    parameters = RooflineParameters(clock_hz=clock, macs_per_cycle=macs, overhead_s=overhead, gains=gains)
    return Design("d", "d", "roofline", parameters, bits, "made up")


def conv(shape: tuple[int, ...], weight: tuple[int, ...], out: tuple[int, ...], **attributes: object) -> OpRule:
    kind = ir.DataType.FLOAT
    given = tuple(sorted(attributes.items()))
    types = tuple(TensorType(kind, extents) for extents in (shape, weight, weight[:1]))
    return rule_for(Signature("", "Conv", 22, given, types, (TensorType(kind, out),)))  # type: ignore[arg-type]


def test_roofline_by_hand() -> None:
    work = Workload.of(
        (), op_class=OpClass.MATMUL, elements=10, macs=10**6, input_bytes=3000, weight_bytes=500, output_bytes=500
    )
    estimate = performance_model(design(overhead=1e-3), accelerator(1e6)).estimate(work)
    assert estimate.compute_s == pytest.approx(1e-4)
    assert estimate.dram_bytes == 4000
    assert estimate.total_s == pytest.approx(4e-3 + 1e-3)
    fast_memory = performance_model(design(overhead=1e-3), accelerator(1e12)).estimate(work)
    assert fast_memory.total_s == pytest.approx(1e-4 + 1e-3)
    narrow = performance_model(design(bits=16), accelerator(1e6)).estimate(work)
    assert narrow.dram_bytes == 2000


def test_gain_is_for_its_kernel_only() -> None:
    gain = KernelGain(kernel=(3, 3), strides=(1, 1), factor=4.0, source="made up")
    model = performance_model(design(gains=(gain,)), accelerator(1e15))
    kernels = [[1, 3, 3], [1, 3, 3], [1, 3, 3], [1, 1, 3], [1, 1, 1], [3, 3, 3]]
    strides = [[1, 1, 1], [1, 2, 2], [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    dilations = [[1, 1, 1], [1, 1, 1], [1, 2, 2], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
    work = Workload.of(
        (6,), op_class=OpClass.CONV, elements=1, macs=10**6, kernel=kernels, strides=strides, dilations=dilations
    )
    np.testing.assert_allclose(model.estimate(work).compute_s, np.array([0.25, 1, 1, 1, 1, 1]) * 1e-4)


def test_nothing_costs_nothing_and_a_view_only_its_overhead() -> None:
    model = performance_model(design(overhead=1e-6), accelerator())
    empty = Workload.of((2,), elements=[0, 5], macs=[7, 7], input_bytes=100)
    np.testing.assert_array_equal(model.estimate(empty).total_s > 0, [False, True])
    view = Workload.of((), op_class=OpClass.VIEW, elements=100, macs=100, input_bytes=400, output_bytes=400)
    assert model.estimate(view).total_s == 1e-6


def test_workload_of_shares() -> None:
    rule = conv((1, 4, 8, 8), (6, 4, 3, 3), (1, 6, 4, 4), strides=(2, 2), pads=(1, 1, 1, 1), kernel_shape=(3, 3))
    ranges = {name: (np.asarray(low), np.asarray(high)) for name, (low, high) in rule.whole_ranges().items()}
    whole = workload(rule, ranges)
    assert whole.shape == ()
    assert whole.macs == 6 * 4 * 4 * 4 * 9
    assert whole.input_bytes == 4 * 8 * 8 * 4
    assert whole.weight_bytes == (6 * 4 * 9 + 6) * 4
    assert whole.output_bytes == 6 * 16 * 4
    assert (whole.in_channels, whole.out_channels, whole.groups) == (4, 6, 1)
    assert whole.strides.tolist() == [1, 2, 2]
    ranges["Cout"] = (np.array([0, 4, 6]), np.array([4, 6, 6]))
    shares = workload(rule, ranges)
    assert shares.shape == (3,)
    assert shares.macs.tolist() == [4 * 16 * 36, 2 * 16 * 36, 0]
    assert shares.out_channels.tolist() == [4, 2, 0]
    assert shares.input_bytes.tolist() == [1024, 1024, 0]
    assert shares.kernel.tolist() == [[1, 3, 3]] * 3
    ranges["H"] = (np.array([0, 2, 0]), np.array([2, 4, 4]))
    # Rows 0:2 at stride 2 read rows 0:4 of the input, rows 2:4 read 3:8: the halo counts.
    assert workload(rule, ranges).input_bytes.tolist() == [4 * 4 * 8 * 4, 4 * 5 * 8 * 4, 0]


def test_grouped_workload() -> None:
    rule = conv((1, 8, 4, 4), (8, 2, 1, 1), (1, 8, 4, 4), group=4, kernel_shape=(1, 1))
    ranges = dict(rule.whole_ranges())
    ranges["Cout"] = (np.array([0, 0, 0]), np.array([8, 4, 1]))
    work = workload(rule, ranges)
    assert work.groups.tolist() == [4, 2, 1]
    assert work.in_channels.tolist() == [2, 2, 2]


def test_operators_without_a_rule_are_not_free() -> None:
    kind = ir.DataType.FLOAT
    types = (TensorType(kind, (5, 7)), TensorType(kind, (7, 3)))
    rule = rule_for(Signature("", "MatMul", 13, (), types, (TensorType(kind, (5, 3)),), opaque=True))
    assert workload(rule, {}).macs == 5 * 7 * 3
    strange = rule_for(Signature("com.example", "Strange", 1, (), types, (TensorType(ir.DataType.STRING, (2,)),)))
    work = workload(strange, {}, weights={1})
    assert (int(work.macs), int(work.weight_bytes), int(work.output_bytes)) == (35 + 21, 84, 16)
    assert op_class("Strange") == OpClass.OTHER


positive = st.integers(1, 10**12)


@given(
    positive, positive, st.floats(1, 1e12), st.floats(1, 1e10), st.floats(1.0, 100.0), st.sampled_from(list(OpClass))
)
def test_positive_finite_and_monotone(
    macs: int, nbytes: int, bandwidth: float, clock: float, faster: float, kind: OpClass
) -> None:
    work = Workload.of((), op_class=kind, elements=1, macs=macs, input_bytes=nbytes)
    slow = performance_model(design(clock=clock, overhead=1e-6), accelerator(bandwidth)).estimate(work)
    fast = performance_model(design(clock=clock * faster, overhead=1e-6), accelerator(bandwidth * faster)).estimate(
        work
    )
    less = Workload.of((), op_class=kind, elements=1, macs=macs // 2, input_bytes=nbytes // 2)
    for value in (slow.total_s, fast.total_s):
        assert np.isfinite(value)
        assert value > 0
    assert fast.total_s <= slow.total_s
    assert performance_model(design(clock=clock), accelerator(bandwidth)).estimate(less).total_s <= slow.total_s


def test_many_shapes_at_once() -> None:
    count = 100_000
    macs = np.arange(1, count + 1)
    work = Workload.of((count,), op_class=OpClass.CONV, elements=macs, macs=macs, kernel=[1, 3, 3])
    # Accelerators that are alike but for their name give the same again.
    every = [known for name in shipped_pools() for known in load_pool(name).accelerators]
    kinds = {(each.kind, each.designs, each.memory_bandwidth_bytes_per_s): each for each in every}
    assert len(kinds) > 5
    for known in kinds.values():
        for candidate in known.designs:
            total = performance_model(candidate, known).estimate(work).total_s
            assert total.shape == (count,)
            assert np.all(np.diff(total) >= 0)


def test_models_are_registered_as_a_plugin_would_be() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["entry-points"][ENTRY_POINTS] == _OWN
    assert set(own_models()) == set(_OWN)


def test_wrong_designs() -> None:
    class Other(Parameters):
        pass

    with pytest.raises(InputError, match="no performance model is called 'nothing'"):
        performance_model(Design("d", "d", "nothing", Other(), None, "s"), accelerator())
    with pytest.raises(InputError, match="has Other; its performance model 'roofline' takes RooflineParameters"):
        performance_model(Design("d", "d", "roofline", Other(), None, "s"), accelerator())
    with pytest.raises(TypeError, match="no mac"):
        Workload.of((), mac=3)
