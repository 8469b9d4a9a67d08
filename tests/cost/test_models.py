"""The performance models of real designs: properties that hold for every legal shape, and cases by hand."""

import time
from dataclasses import fields

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.cost import Estimate, OpClass, PerformanceModel, Workload, performance_model, workload
from mars_onnx.cost.models.loops import loops
from mars_onnx.cost.models.measured import fit
from mars_onnx.data import data_folder
from mars_onnx.errors import InputError
from mars_onnx.pool import Accelerator, Design, Parameters, load_design
from mars_onnx.pool.model_parameters import (
    ArrayParameters,
    Host,
    MeasuredCurve,
    MeasuredParameters,
    SystolicParameters,
    TiledParameters,
    WinogradParameters,
)
from mars_onnx.rules.base import Signature, TensorType
from mars_onnx.rules.registry import rule_for

SHIPPED = sorted(path.stem for path in (data_folder("hwdb") / "designs").glob("*.json"))
HOST = Host(macs_per_s=1e10, memory_bandwidth_bytes_per_s=1e10, source="made up")


def card(bandwidth: float = 1.92e10) -> Accelerator:
    return Accelerator(0, "card", "fpga", (), 2**34, bandwidth)


def shipped(name: str, bandwidth: float = 1.92e10) -> PerformanceModel:
    return performance_model(load_design(data_folder("hwdb") / "designs" / f"{name}.json"), card(bandwidth))


def made(model: str, parameters: Parameters, bandwidth: float = 1.92e10) -> PerformanceModel:
    return performance_model(Design("d", "d", model, parameters, 16, "made up"), card(bandwidth))


def convolutions(
    filters: object, channels: object, out: object, kernel: object, stride: object = 1, kind: OpClass = OpClass.CONV
) -> Workload:
    """Square convolutions (or products, poolings, ...) with consistent counts."""
    m, n, o, k, s = np.broadcast_arrays(filters, channels, out, kernel, stride)
    one = np.ones_like(m)
    elements = m * o * o
    given_size = (o - 1) * s + k
    return Workload.of(
        m.shape,
        op_class=kind,
        elements=elements,
        macs=elements * n * k * k,
        dtype_bits=16,
        input_bytes=2 * n * given_size**2,
        weight_bytes=2 * m * n * k * k,
        output_bytes=2 * elements,
        out_channels=m,
        in_channels=n,
        out_spatial=np.stack([one, o, o], axis=-1),
        in_spatial=np.stack([one, given_size, given_size], axis=-1),
        kernel=np.stack([one, k, k], axis=-1),
        strides=np.stack([one, s, s], axis=-1),
        m=o * o,
        n=m,
        k=n,
    )


def signature_work(op: str, shapes: list[tuple[int, ...]], out: tuple[int, ...], **attributes: object) -> Workload:
    kind = ir.DataType.FLOAT
    types = tuple(TensorType(kind, shape) for shape in shapes)
    named = tuple(sorted(attributes.items()))
    rule = rule_for(Signature("", op, 22, named, types, (TensorType(kind, out),)))  # type: ignore[arg-type]
    return workload(rule, rule.whole_ranges())


EXTENT = st.integers(1, 600)
LEGAL = st.builds(
    convolutions,
    EXTENT,
    EXTENT,
    st.integers(1, 230),
    st.integers(1, 11),
    st.integers(1, 4),
    st.sampled_from([kind for kind in OpClass if kind != OpClass.VIEW]),
)


@pytest.mark.parametrize("name", SHIPPED)
@given(work=LEGAL)
@settings(max_examples=40, deadline=None)
def test_every_legal_shape_takes_a_positive_finite_time(name: str, work: Workload) -> None:
    found = shipped(name).estimate(work)
    assert np.isfinite(found.total_s)
    assert found.total_s > 0
    for field in fields(Estimate):
        value = getattr(found, field.name)
        assert value.shape == work.shape
        assert np.isfinite(value)
        assert value >= 0
    assert found.total_s >= found.compute_s * (1 - 1e-12)


@pytest.mark.parametrize("name", SHIPPED)
@given(work=LEGAL, times=st.floats(1, 1e4))
@settings(max_examples=25, deadline=None)
def test_more_bandwidth_never_costs_more(name: str, work: Workload, times: float) -> None:
    assert shipped(name, 1e9 * times).estimate(work).total_s <= shipped(name, 1e9).estimate(work).total_s


@pytest.mark.parametrize("name", [name for name in SHIPPED if not name.startswith("cnn_accel")])
@given(work=st.tuples(EXTENT, EXTENT, st.integers(1, 230), st.integers(1, 7)), more=st.integers(0, 3), by=EXTENT)
@settings(max_examples=25, deadline=None)
def test_less_work_never_costs_more(name: str, work: tuple[int, int, int, int], more: int, by: int) -> None:
    """One extent grows. Of kernels, Winograd's designs are exempt: 3x3 is quicker than what lies around it."""
    grown = list(work)
    if more == 3 and name == "winograd":
        more = 2
    grown[more] += by if more < 2 else by % 8
    model = shipped(name)
    assert model.estimate(convolutions(*work)).total_s <= model.estimate(convolutions(*grown)).total_s


@given(work=st.tuples(EXTENT, EXTENT, st.integers(1, 64), st.integers(1, 7)), by=EXTENT)
@settings(max_examples=50, deadline=None)
def test_a_feed_never_gains_by_more_channels(work: tuple[int, int, int, int], by: int) -> None:
    model = shipped("cnn_accel_m32p64")
    less, more = (work[0], work[1]), (work[0] + by, work[1] + by)
    small = model.estimate(convolutions(*less, *work[2:])).total_s
    assert small <= model.estimate(convolutions(*more, *work[2:])).total_s


def tiled(**changes: object) -> TiledParameters:
    base = {
        "clock_hz": 2e8,
        "tile_out_channels": 64,
        "tile_in_channels": 7,
        "tile_rows": 7,
        "tile_cols": 14,
        "input_words_per_cycle": 8.0,
        "weight_words_per_cycle": 32.0,
        "output_words_per_cycle": 8.0,
        "host": HOST,
    }
    return TiledParameters.model_validate(base | changes)


@given(work=LEGAL.filter(lambda work: work.op_class in (OpClass.CONV, OpClass.MATMUL)), faster=st.integers(1, 16))
@settings(max_examples=40, deadline=None)
def test_more_parallelism_never_costs_more(work: Workload, faster: int) -> None:
    """Multiples of what is there, so that no tile becomes more ragged than it was."""
    fields_of = {
        "tiled": (tiled(), tiled(clock_hz=2e8 * faster), tiled(weight_words_per_cycle=32.0 * faster)),
        "array": (array(), array(pixel_parallel=8 * faster), array(out_channel_parallel=16 * faster)),
        "winograd": (winograd(), winograd(out_channel_parallel=8 * faster), winograd(in_channel_parallel=2 * faster)),
    }
    for model, (base, *better) in fields_of.items():
        for parameters in better:
            before, after = (made(model, chosen, 1e16).estimate(work) for chosen in (base, parameters))
            assert after.compute_s <= before.compute_s * (1 + 1e-12)
            assert after.total_s <= before.total_s * (1 + 1e-12)


def array(**changes: object) -> ArrayParameters:
    base = {
        "clock_hz": 3e8,
        "pixel_parallel": 8,
        "in_channel_parallel": 16,
        "out_channel_parallel": 16,
        "input_buffer_bytes": 2**19,
        "host": HOST,
    }
    return ArrayParameters.model_validate(base | changes)


def winograd(**changes: object) -> WinogradParameters:
    base = {
        "clock_hz": 2e8,
        "tile_outputs": 4,
        "in_channel_parallel": 2,
        "out_channel_parallel": 8,
        "input_buffer_bytes": 2**20,
        "host": HOST,
    }
    return WinogradParameters.model_validate(base | changes)


@pytest.mark.parametrize("name", SHIPPED)
def test_many_shapes_at_once_agree_with_one_at_a_time(name: str) -> None:
    random = np.random.default_rng(5)
    kinds = [int(kind) for kind in OpClass]
    parts = [
        convolutions(*random.integers(1, 300, (2, 20)), *random.integers(1, 12, (3, 20)), kind=OpClass(kind))
        for kind in kinds
    ]
    names = Workload.__slots__
    together = Workload(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})
    model = shipped(name)
    all_at_once = model.estimate(together)
    for index in range(0, len(together.elements), 7):
        one = model.estimate(Workload(**{n: getattr(together, n)[index] for n in names}))
        for field in fields(Estimate):
            assert getattr(one, field.name) == getattr(all_at_once, field.name)[index]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_hundred_thousand_shapes_in_well_under_a_second(name: str) -> None:
    random = np.random.default_rng(3)
    work = convolutions(*random.integers(1, 600, (2, 100_000)), *random.integers(1, 100, (3, 100_000)))
    model = shipped(name)
    start = time.process_time()
    assert model.estimate(work).total_s.shape == (100_000,)
    assert time.process_time() - start < 0.9


@pytest.mark.parametrize("name", SHIPPED)
def test_one_share_is_the_whole(name: str) -> None:
    """A share of everything, given as an array of one, costs what the node costs: splitting in one is free."""
    kind = ir.DataType.FLOAT
    types = (TensorType(kind, (1, 24, 20, 20)), TensorType(kind, (40, 24, 3, 3)))
    attributes = (("kernel_shape", (3, 3)), ("pads", (1, 1, 1, 1)))
    rule = rule_for(Signature("", "Conv", 22, attributes, types, (TensorType(kind, (1, 40, 20, 20)),)))
    whole = rule.whole_ranges()
    one = {axis: (low[None], high[None]) for axis, (low, high) in whole.items()}
    model = shipped(name)
    assert model.estimate(workload(rule, one)).total_s.tolist() == [model.estimate(workload(rule, whole)).total_s]


def test_ragged_tiles_run_their_own_rows_and_whole_channels() -> None:
    ragged = made("tiled", tiled(), 1e16).estimate(convolutions(65, 8, 10, 3))
    assert ragged.compute_s * 2e8 == pytest.approx(2 * 2 * 10 * 10 * 9)
    whole = made("tiled", tiled(edge_tiles="whole"), 1e16).estimate(convolutions(65, 8, 10, 3))
    assert whole.compute_s * 2e8 == pytest.approx(2 * 2 * 2 * 1 * 7 * 14 * 9)


def test_groups_run_one_after_another() -> None:
    one = signature_work("Conv", [(1, 4, 14, 14), (8, 4, 3, 3)], (1, 8, 12, 12), kernel_shape=(3, 3))
    four = signature_work("Conv", [(1, 16, 14, 14), (32, 4, 3, 3)], (1, 32, 12, 12), kernel_shape=(3, 3), group=4)
    depthwise = signature_work("Conv", [(1, 32, 14, 14), (32, 1, 3, 3)], (1, 32, 12, 12), kernel_shape=(3, 3), group=32)
    for name in ("superlip", "systolic", "winograd", "dpu_b4096"):
        first, second, third = (shipped(name).estimate(work).compute_s for work in (one, four, depthwise))
        assert second == pytest.approx(4 * first, rel=0.1)
        assert third > second / 4


def test_dilation_widens_the_window_and_not_the_work() -> None:
    plain = signature_work("Conv", [(1, 8, 30, 30), (8, 8, 3, 3)], (1, 8, 28, 28), kernel_shape=(3, 3))
    wide = signature_work("Conv", [(1, 8, 30, 30), (8, 8, 3, 3)], (1, 8, 24, 24), kernel_shape=(3, 3), dilations=(3, 3))
    assert loops(wide).reach_rows == 7
    assert loops(wide).taps == loops(plain).taps
    # The rule of Winograd's algorithm wants undilated kernels: what is dilated runs direct, four times the cycles.
    model = shipped("winograd")
    assert model.estimate(wide).compute_s * 2e8 == 4 * 4 * 9 * 4 * 1
    assert model.estimate(plain).compute_s * 2e8 == 7 * 7 * 4 * 1


def test_transposed_convolutions_run_phase_by_phase() -> None:
    work = signature_work(
        "ConvTranspose", [(1, 16, 10, 10), (16, 32, 4, 4)], (1, 32, 20, 20), strides=(2, 2), pads=(1, 1, 1, 1)
    )
    nest = loops(work)
    assert (int(nest.passes), int(nest.rows), int(nest.cols), int(nest.taps)) == (4, 10, 10, 4)
    assert (int(nest.in_channels), int(nest.out_channels)) == (16, 32)
    assert shipped("superlip").estimate(work).compute_s * 2e8 == pytest.approx(4 * 3 * 1 * 100 * 4)


@pytest.mark.parametrize(
    ("kernel", "stride", "applies"),
    [
        (3, 1, True),
        (5, 2, True),
        (4, 2, True),
        (7, 3, True),
        (3, 2, False),
        (1, 1, False),
        (5, 1, False),
        (7, 2, False),
    ],
)
def test_winograd_applies_where_its_rule_says(kernel: int, stride: int, applies: bool) -> None:
    cycles = shipped("winograd", 1e16).estimate(convolutions(64, 64, 24, kernel, stride)).compute_s * 2e8
    fast = 6 * 6 * (64 * stride * stride // 2) * 8
    direct = 4 * 4 * kernel**2 * 32 * 8
    assert cycles == pytest.approx(min(fast, direct) if applies else direct)


def test_systolic_by_hand() -> None:
    """4 x 3 cells of 2 multipliers; 16 pixels, 7 filters, 9 taps of 5 channels: 27 steps of the reduction."""
    expected = {
        "ws": 7 * 3 * (8 + 3 - 2 + 16) - 1,
        "os": 4 * 3 * (4 + 3 - 2 + 27) - 1,
        "is": 7 * 6 * (8 + 3 - 2 + 7) - 1,
    }
    for dataflow, cycles in expected.items():
        parameters = SystolicParameters.model_validate(
            {"clock_hz": 1e8, "rows": 4, "columns": 3, "cell_multipliers": 2, "dataflow": dataflow}
            | dict.fromkeys(("input_buffer_bytes", "weight_buffer_bytes", "output_buffer_bytes"), 2**20)
        )
        assert made("systolic", parameters).estimate(convolutions(7, 5, 4, 3)).cycles == cycles


def test_small_buffers_are_paid_for_in_traffic() -> None:
    work = convolutions(256, 64, 28, 3)
    for dataflow in ("ws", "os", "is"):
        traffic = []
        for size in (2**10, 2**30):
            parameters = SystolicParameters.model_validate(
                {"clock_hz": 1e8, "rows": 16, "columns": 16, "dataflow": dataflow}
                | dict.fromkeys(("input_buffer_bytes", "weight_buffer_bytes", "output_buffer_bytes"), size)
            )
            traffic.append(float(made("systolic", parameters).estimate(work).dram_bytes))
        assert traffic[0] > traffic[1]
        assert traffic[1] == work.bytes


def test_a_softmax_goes_to_the_host_or_is_refused_by_name() -> None:
    work = Workload.of((), op_class=OpClass.SOFTMAX, elements=10**6, macs=10**6, input_bytes=4 * 10**6, dtype_bits=32)
    with pytest.raises(InputError, match="the design 'd' cannot run work of the class softmax, and names no host"):
        made("tiled", tiled(host=None)).estimate(work)
    paid = made("tiled", tiled()).estimate(work)
    assert paid.total_s == pytest.approx(2e6 / 1.92e10 + max(1e6 / 1e10, 2e6 / 1e10))
    assert paid.cycles == 0
    nothing = Workload.of((2,), op_class=[OpClass.CONV, OpClass.SOFTMAX], elements=[1, 0], macs=[1, 0])
    assert made("tiled", tiled(host=None)).estimate(nothing).total_s[1] == 0


def test_convolutions_without_a_rule_do_not_run_on_an_array_by_their_missing_extents() -> None:
    kind = ir.DataType.FLOAT
    types = (TensorType(kind, (1, 64, 56, 56)), TensorType(kind, (64, 64, 3, 3)))
    rule = rule_for(Signature("", "Conv", 22, (), types, (TensorType(kind, (1, 64, 54, 54)),), opaque=True))
    work = workload(rule, {})
    assert work.op_class == OpClass.OTHER
    assert work.macs == 64 * 54 * 54 * 64 * 9
    assert shipped("superlip").estimate(work).total_s > 64 * 54 * 54 * 64 * 9 / 1e12


def curve(**changes: object) -> MeasuredParameters:
    base = {"classes": ("conv",), "fixed_s": 1e-5, "s_per_mmac": 1e-4, "source": "made up"}
    return MeasuredParameters(curves=(MeasuredCurve.model_validate(base | changes),), host=HOST)


def test_measured_fit_and_points() -> None:
    work = Workload.of((3,), op_class=OpClass.CONV, elements=1, macs=[10**4, 10**6, 10**8], weight_bytes=10**6)
    linear = made("measured", curve(s_per_weight_mb=1e-3)).estimate(work).total_s
    np.testing.assert_allclose(linear, [1e-5 + 1e-6 + 0.5e-3, 1e-5 + 1e-4 + 0.5e-3, 1e-5 + 1e-2 + 0.5e-3])
    pointed = curve(points=((0.1, 1e-3), (10.0, 1e-1)), fixed_s=0.0, s_per_mmac=0.0)
    np.testing.assert_allclose(made("measured", pointed).estimate(work).total_s, [1e-3, 1e-2, 1.0])
    alone = made("measured", MeasuredParameters(curves=curve().curves))
    with pytest.raises(InputError, match="cannot run work of the class matmul"):
        alone.estimate(Workload.of((), op_class=OpClass.MATMUL, elements=1, macs=1))
    with pytest.raises(ValueError, match="prices its classes at nothing"):
        curve(fixed_s=0.0, s_per_mmac=0.0)
    with pytest.raises(ValueError, match="should rise in both"):
        curve(points=((2.0, 1.0), (1.0, 2.0)))


def test_a_fit_finds_what_made_the_times_and_nothing_negative() -> None:
    random = np.random.default_rng(2)
    features = np.c_[np.ones(40), random.uniform(1, 100, (40, 3))]
    truth = np.array([1e-5, 2e-6, 0.0, 3e-6])
    np.testing.assert_allclose(fit(features, features @ truth), truth, atol=1e-12)
    falling = fit(features, 1e-3 / features[:, 1])
    assert np.all(falling >= 0)
