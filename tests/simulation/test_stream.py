"""Streams of inferences: by hand, and between the busiest set and the whole latency."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_onnx.compiler import Compilation, compile
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.problem import problem_of
from mars_onnx.simulation import ADDITIVE, Conditions, stream_period_s
from mars_onnx.simulation.program import program_of, rank_of
from mars_onnx.simulation.stream import repeated
from mars_onnx.stages import attachments
from tests.end_to_end.test_random_mappings import GROUPS, compiled
from tests.passes.onnx_text import model
from tests.simulation.partitions import EVERYTHING, models_of, pool_with, simulated
from tests.simulation.test_simulate import COMMON

TWO = "(float[64,64] x) => (float[64,128] z) { [one] y = MatMul (x, w) [two] z = MatMul (y, v) }"
#: Seconds of what happens, in order: in from the host, the first product, over to the other, the second, out.
IN_S, ONE_S, OVER_S = 2e-6 + 64 * 64 * 4 / 5e8, 64**3 / 1e9, 1e-6 + 64 * 64 * 4 / 1e9
TWO_S, OUT_S = 64 * 64 * 128 / 1e9, 2e-6 + 64 * 128 * 4 / 5e8


def in_a_row(folder: Path, **overlap: bool) -> Compilation:
    """Two products, each on an accelerator of its own."""
    sets = [{"accelerators": ["a0"], "layers": {"one": "auto"}}, {"accelerators": ["a1"], "layers": {"two": "auto"}}]
    path = folder / "mapping.json"
    path.write_text(json.dumps({"schema": "mars-onnx/mapping/1", "sets": sets}), encoding="utf-8")
    return compile(model(TWO, {"w": (64, 64), "v": (64, 128)}), pool_with((2,), **overlap), mapping=path)


@pytest.mark.parametrize("overlap", [{}, {"communication_with_compute": True, "local_moves": False}])
def test_two_accelerators_by_hand(overlap: dict[str, bool], tmp_path: Path) -> None:
    done = in_a_row(tmp_path, **overlap)
    assert done.simulation.latency_s == pytest.approx(IN_S + ONE_S + OVER_S + TWO_S + OUT_S)
    # The second is the busier one. What it takes over has to wait until its last result is out, with overlap, too.
    period_s = stream_period_s(models_of(done), done.pool, done.canonical)
    assert period_s == pytest.approx(OVER_S + TWO_S + OUT_S)
    assert evaluate(done.problem, done.pool, done.mapping).period_s == pytest.approx(period_s)


def test_inferences_one_after_the_other(tmp_path: Path) -> None:
    done = in_a_row(tmp_path)
    models = {rank_of(own): own for own in models_of(done)}
    one = program_of(models)
    three = repeated(one, 3)
    size = len(one.tasks)
    assert [task.index for task in three.tasks] == list(range(3 * size))
    for task in three.tasks[size:]:
        before = three.tasks[task.index - size]
        assert list(task.after) == [index + size for index in before.after]
        assert (task.kind, task.label, task.ranks) == (before.kind, before.label, before.ranks)
        assert task.step is None or before.step is None or task.step > before.step
    for rank, order in three.order.items():
        assert order == [index + size * number for number in range(3) for index in one.order[rank]]


@settings(COMMON, max_examples=40)
@given(
    size=st.integers(1, 10),
    groups=st.sampled_from(GROUPS),
    graph_seed=st.integers(0, 2**32 - 1),
    mapping_seed=st.integers(0, 2**32 - 1),
)
def test_between_the_busiest_set_and_the_latency(
    size: int, groups: tuple[int, ...], graph_seed: int, mapping_seed: int
) -> None:
    own = compiled(size, groups, graph_seed, mapping_seed)
    mapping = attachments.get_mapping(own.canonical)
    cost = evaluate(problem_of(own.canonical), own.pool, mapping)
    period_s = stream_period_s(own.models.values(), own.pool, own.canonical, ADDITIVE)
    assert cost.period_s * (1 - 1e-9) <= period_s <= cost.latency_s * (1 + 1e-9)
    for conditions in (EVERYTHING, Conditions(overlap=True)):
        # Whatever happens at the same time, a stream is no slower than one inference after the other.
        latency_s = simulated(own, conditions).latency_s
        assert stream_period_s(own.models.values(), own.pool, own.canonical, conditions) <= latency_s * (1 + 1e-9)
