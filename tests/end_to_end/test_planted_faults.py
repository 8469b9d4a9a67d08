"""Faults planted in the compiler must be caught by what looks at partitions, and by nothing that knows of the fault.

Each fault is one wrong line in one place of the compiler. Random models with random mappings are compiled until one of
the checks raises its hand. ``pytest -s`` prints which check caught which fault, and after how many cases that the fault
had a part in.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import onnx_ir as ir
import pytest

from mars_onnx.comm import HaloExchange
from mars_onnx.emission import emitter, partition, transcribe
from mars_onnx.emission.local_graph import LocalGraphBuilder
from mars_onnx.emission.partition import Fragments, PartitionBuilder
from mars_onnx.errors import MarsError
from mars_onnx.geometry import Box, Reduction, box_shape
from mars_onnx.redistribution.planner import redistribute
from mars_onnx.rules.axes import Window
from mars_onnx.rules.convolution import GroupedChannels
from mars_onnx.rules.registry import rule_for
from mars_onnx.runtime.segments import communication_order
from mars_onnx.sharding import lowering
from tests.end_to_end.checking import alarms, canonical, compile_with
from tests.end_to_end.random_graphs import random_model
from tests.mappings import random_mapping
from tests.pool_factory import pool_of

#: How many models are tried, and how many of those that a fault has a part in may pass all checks.
MOST_CASES, MOST_MISSES = 400, 20
GROUPS = [(2,), (3,), (4,), (2, 2), (5,), (6,)]

Touched = list[str]
"""Something is in it as soon as the fault has changed anything."""
Plant = Callable[[pytest.MonkeyPatch, Touched], Callable[[ir.Model], None] | None]
FAULTS: dict[str, Plant] = {}
CAUGHT: dict[str, str] = {}


def fault(name: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        FAULTS[name] = plant
        return plant

    return register


def moved_back(box: Box | None, touched: Touched) -> Box | None:
    """The box one element before, of the same size, along the first dimension where it does not start at 0."""
    for dim, (start, stop) in enumerate(box or ()):
        if start > 0:
            touched.append("box")
            return (*box[:dim], (start - 1, stop - 1), *box[dim + 1 :])
    return box


@fault("a window that is one row short")
def short_window(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = Window.__call__

    def wrong(self: Window, ranges):
        start, stop = right(self, ranges)
        touched.append("window")
        return start, (stop - ((stop - start > 1) & (stop < self.size)))

    patch.setattr(Window, "__call__", wrong)


@fault("pads as in the whole convolution, on every member")
def unclipped_pads(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = Window.pads

    def wrong(self: Window, low: int, high: int, first: int, last: int):
        pads = right(self, low, high, first, last)
        if pads[0] < self.pad:
            touched.append("pads")
        return self.pad, pads[1]

    patch.setattr(Window, "pads", wrong)


@fault("the bias on every member that adds to a sum")
def bias_everywhere(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = lowering.shares_of

    def wrong(rule, ranges):
        shares = right(rule, ranges)
        biased = rule.signature.op_type in ("Conv", "Gemm") and len(rule.signature.inputs) > 2
        if biased and not all(share.first for share in shares):
            touched.append("bias")
        return [replace(share, first=True) for share in shares]

    patch.setattr(lowering, "shares_of", wrong)


@fault("the input channels of the first group for every group")
def wrong_group(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = GroupedChannels.__call__

    def wrong(self: GroupedChannels, ranges):
        start, stop = right(self, ranges)
        group = start // self.inputs_per_group
        if group.any():
            touched.append("group")
        return start - group * self.inputs_per_group, stop - group * self.inputs_per_group

    patch.setattr(GroupedChannels, "__call__", wrong)


@fault("collectives that take the maximum instead of the sum")
def wrong_collective(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = transcribe.local_operator

    def wrong(collective, *rest):
        operator = right(collective, *rest)
        if getattr(operator, "reduce_op", None) is not Reduction.SUM:
            return operator
        touched.append("reduction")
        return replace(operator, reduce_op=Reduction.MAX)

    patch.setattr(transcribe, "local_operator", wrong)


@fault("partial sums of one member combined by maximum")
def wrong_combination(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = LocalGraphBuilder.combine

    def wrong(self: LocalGraphBuilder, values, reduction):
        if len(values) > 1 and reduction is Reduction.SUM:
            touched.append("reduction")
        return right(self, values, Reduction.MAX if reduction is Reduction.SUM else reduction)

    patch.setattr(LocalGraphBuilder, "combine", wrong)


@fault("a partial sum dropped where parts come together")
def dropped_part(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = Fragments.assemble

    def wrong(self: Fragments, need, terms, reduction):
        if len(terms) > 1:
            touched.append("part")
        return right(self, need, terms[: max(1, len(terms) - 1)], reduction)

    patch.setattr(Fragments, "assemble", wrong)


@fault("all sends before all receives")
def sends_first(patch: pytest.MonkeyPatch, touched: Touched) -> Callable[[ir.Model], None]:
    def reorder(model: ir.Model) -> None:
        order = communication_order(model.graph)
        wrong = sorted(order, key=lambda node: node.op_type != "Send")
        if wrong == order:
            return
        touched.append("order")
        token, end = order[0].inputs[-1], order[-1].outputs[-1]
        for node in wrong:
            node.replace_input_with(len(node.inputs) - 1, token)
            token = node.outputs[-1]
        model.graph.outputs[list(model.graph.outputs).index(end)] = token

    return reorder


@fault("rings that turn the wrong way")
def wrong_rotation(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = emitter.ring_shift

    def wrong(group, pieces, phase):
        shifts = right(group, pieces, phase)
        # Pieces of equal shapes only: of others, the shapes alone would tell.
        if len(group) < 3 or None in pieces or len({box_shape(piece) for piece in pieces}) > 1:
            return shifts
        touched.append("ring")
        return [replace(shift, offset=-shift.offset) for shift in shifts]

    patch.setattr(emitter, "ring_shift", wrong)


@fault("a halo that is one row off")
def stale_halo(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = transcribe.local_operator

    def wrong(collective, *rest):
        operator = right(collective, *rest)
        if not isinstance(operator, HaloExchange):
            return operator
        touched.append("halo")
        lowest = min(operator.held[::2])
        need = list(operator.need)
        for i in range(0, len(need), 2):
            if need[i] > lowest:
                need[i], need[i + 1] = need[i] - 1, need[i + 1] - 1
        return replace(operator, need=tuple(need))

    patch.setattr(transcribe, "local_operator", wrong)


@fault("the weights of the row before")
def wrong_weights(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = partition.slice_initializer

    def wrong(value, box, name):
        return ir.tensor(right(value, moved_back(box, touched), name).numpy(), name=name)

    patch.setattr(partition, "slice_initializer", wrong)


@fault("a slice of what a member holds, one element off")
def wrong_slice(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = partition.relative
    patch.setattr(partition, "relative", lambda inner, outer: moved_back(right(inner, outer), touched))


@fault("pieces joined in the wrong order")
def wrong_join(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = LocalGraphBuilder.concat

    def wrong(self: LocalGraphBuilder, values, axis):
        if len(values) > 1:
            touched.append("join")
        return right(self, values[::-1], axis)

    patch.setattr(LocalGraphBuilder, "concat", wrong)


@fault("metadata that names the box before")
def wrong_box(patch: pytest.MonkeyPatch, touched: Touched) -> None:
    right = PartitionBuilder.name_after

    def wrong(self: PartitionBuilder, value, source, box, part="", reduce=""):
        right(self, value, source, moved_back(box, touched), part, reduce)

    patch.setattr(PartitionBuilder, "name_after", wrong)


@contextmanager
def forgetting() -> Iterator[None]:
    """What the compiler remembers must not hide a fault, nor outlive it."""
    remembered = (rule_for.cache_clear, lowering.forget, redistribute.cache_clear)
    for forget in remembered:
        forget()
    yield
    for forget in remembered:
        forget()


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    misses = 0
    for seed in range(MOST_CASES):
        rng = random.Random(seed)
        source = ir.from_proto(random_model(seed, rng.randint(3, 8)))
        pool = pool_of(*rng.choice(GROUPS))
        graph = canonical(source, pool)
        mapping = random_mapping(rng, graph, pool)
        touched: Touched = []
        with monkeypatch.context() as patch, forgetting():
            change = FAULTS[name](patch, touched)
            found = caught(source, graph, mapping, pool, change, touched)
        if found is not None:
            CAUGHT[name] = f"{found} (case {misses + 1})"
            return
        misses += bool(touched)
        assert misses < MOST_MISSES, f"{name}: {misses} cases with this fault passed all checks"
    pytest.fail(f"{name}: no case in which it matters")


def caught(source, graph, mapping, pool, change, touched: Touched) -> str | None:
    """What finds the fault; what the fault had no part in is not looked at."""
    try:
        compiled = compile_with(source, graph, mapping, pool)
        for model in compiled.models.values() if change else ():
            change(model)
        return ", ".join(alarms(compiled)) or None if touched else None
    except (AssertionError, ValueError, MarsError):
        return "the compiler itself" if touched else None


def test_zz_table() -> None:
    """Which check caught which fault (``pytest -s``)."""
    assert CAUGHT.keys() == FAULTS.keys() or len(CAUGHT) < len(FAULTS), "run with the others, or alone"
    width = max(map(len, FAULTS))
    for name in FAULTS:
        print(f"{name:{width}}  {CAUGHT.get(name, 'not run here')}")
