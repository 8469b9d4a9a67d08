"""A search is ended by what it has done, which is the same everywhere; a clock has no part in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mars_onnx.errors import UsageError
from mars_onnx.search.exact import work
from mars_onnx.search.exact.communication.moves import Moves
from mars_onnx.search.exact.limits import Limits
from mars_onnx.search.exact.one_set.alternatives import least_places
from mars_onnx.search.exact.search import exact_search
from mars_onnx.search.exact.work import Meter, metered, spend
from mars_onnx.search.find import check_options
from mars_onnx.search.method import Ending, Objective, SearchOptions, SearchResult
from tests.search.networks import BRANCHES, CHAIN, RESIDUAL, adaptive_pool, problem

ROOT = Path(__file__).parent.parent.parent.parent
#: A search in a process of its own; with an argument, redistributions take longer to price there.
SCRIPT = """
import sys, time
from mars_onnx.search.exact.communication.moves import Moves
from tests.search.exact.test_work import ended, facts

exact = Moves.exact

def slow(self, source, target):
    time.sleep(0.002)
    return exact(self, source, target)

if sys.argv[1] == "slow":
    Moves.exact = slow
print(facts(ended(sys.argv[2], float(sys.argv[3]))))
"""


#: On more than eight accelerators a search begins otherwise.
CASES = {
    "few": (RESIDUAL, adaptive_pool(3, 3)),
    "many": (CHAIN, adaptive_pool(5, 4)),
    "branches": (BRANCHES, adaptive_pool(2, 2)),
}


def ended(name: str, units: float | None, objective: Objective = Objective.LATENCY) -> SearchResult:
    """A search that ends after so much work."""
    text, pool = CASES[name]
    return exact_search(problem(text, pool), pool, SearchOptions(objective, work_limit=units))


def facts(found: SearchResult) -> str:
    """All that is said of an answer."""
    return repr((found.mapping, found.others, found.cost_s, found.lower_bound_s, str(found.ending), found.work))


def elsewhere(speed: str, name: str, units: float, seed: int) -> str:
    """The same search in another process."""
    places = os.pathsep.join([str(ROOT), str(ROOT / "passes"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": places}
    command = [sys.executable, "-c", SCRIPT, speed, name, str(units)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["few", "many"])
def test_the_same_answer_on_a_slow_machine_and_in_any_process(name: str) -> None:
    whole = ended(name, None)
    assert whole.work is not None
    units = whole.work * 0.6
    here = ended(name, units)
    assert here.ending is Ending.WORK_LIMIT
    assert here.work is not None
    assert units < here.work
    assert elsewhere("fast", name, units, seed=1) == facts(here)
    assert elsewhere("slow", name, units, seed=2) == facts(here)


@pytest.mark.parametrize("objective", list(Objective))
@pytest.mark.parametrize("name", ["few", "branches"])
def test_a_slow_machine_decides_the_same(name: str, objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at on the way, too, depends on work and not on time."""
    before = facts(ended(name, 0.5, objective))
    exact = Moves.exact

    def slow(self: Moves, source: int, target: int) -> float:
        time.sleep(0.001)
        return exact(self, source, target)

    monkeypatch.setattr(Moves, "exact", slow)
    assert facts(ended(name, 0.5, objective)) == before


def test_a_clock_is_only_looked_at_if_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = facts(ended("few", None))
    monkeypatch.setattr("mars_onnx.search.exact.limits.monotonic", _hours())
    assert facts(ended("few", None)) == expected
    text, pool = CASES["few"]
    late = exact_search(problem(text, pool), pool, SearchOptions(time_limit_s=1.0))
    assert late.ending is Ending.TIME_LIMIT
    both = exact_search(problem(text, pool), pool, SearchOptions(time_limit_s=1.0, work_limit=1e-9))
    assert both.ending is Ending.WORK_LIMIT


def _hours() -> Callable[[], float]:
    """A clock that goes by an hour whenever somebody looks."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += 3600.0
        return now

    return look


def test_the_meter_of_a_search() -> None:
    spend(10**12)  # outside of any search
    outer, inner = Meter(), Meter()
    with metered(outer):
        spend(10**12, 2)
        with metered(inner):
            spend(5 * 10**11)
        spend(10**12)
    spend(10**12)
    assert (outer.units, inner.units) == (3.0, 0.5)


def test_a_meter_is_given_back_after_an_error() -> None:
    meter = Meter()
    with pytest.raises(ZeroDivisionError), metered(meter):
        raise ZeroDivisionError
    spend(10**12)
    assert meter.units == 0.0


def test_every_kind_of_work_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weight is left over, and no work of a search that takes long is free."""
    weights = {name for name in vars(work) if name.isupper() and not name.startswith("_")}
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(work.__file__).parent.rglob("*.py"))
    ways = ("spend({},", "spend({})", "spend_on_simple({},", ", {} + ")
    assert {name for name in weights if any(way.format(name) in sources for way in ways)} == weights


@pytest.mark.parametrize("units", [0.0, -1.0, float("nan"), float("inf")])
def test_limits_without_sense(units: float) -> None:
    with pytest.raises(UsageError, match=r"--work-limit .*: must be a number of units above 0"):
        check_options(SearchOptions(work_limit=units))


def test_least_places_are_the_first_of_equal_ones() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.integers(0, 5, rng.integers(1, 200)).astype(np.float64)
        count = int(rng.integers(1, len(values) + 3))
        expected = sorted(range(len(values)), key=lambda place: (values[place], place))[:count]
        assert sorted(least_places(values, count).tolist()) == sorted(expected)


def test_a_limit_of_time_leaves_some_for_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 97.0, 99.0])
    monkeypatch.setattr("mars_onnx.search.exact.limits.monotonic", lambda: next(clock))
    limits = Limits(SearchOptions(time_limit_s=100.0), started=next(clock))
    assert limits.over is None
    assert limits.over is Ending.TIME_LIMIT


def test_branches_end_at_the_limit() -> None:
    """Also where no choice of sets is better than what is known already."""
    pool = adaptive_pool(6, 6)
    found = exact_search(problem(BRANCHES, pool), pool, SearchOptions(work_limit=0.1))
    assert found.ending is Ending.WORK_LIMIT
    assert found.work is not None
    # What is simple is looked at in the end, whatever the limit. All of the search takes 1.7.
    assert found.work < 0.5


def test_many_branches_end_at_the_limit() -> None:
    """Six inputs: the ways to choose sets for them are more than can be counted, and looking at one is work too."""
    branches = range(6)
    inputs = ", ".join(f"float[1,3,16,16] x{branch}" for branch in branches)
    layers = "\n".join(f"y{branch} = Conv <pads = [1,1,1,1]> (x{branch}, w8x3x3x3)" for branch in branches)
    joined = ", ".join(f"y{branch}" for branch in branches)
    text = f"many ({inputs}) => (float[1,48,16,16] z) {{\n{layers}\nz = Concat <axis = 1> ({joined})\n}}"
    pool = adaptive_pool(5, 4)
    found = exact_search(problem(text, pool), pool, SearchOptions(work_limit=0.5))
    assert found.ending is Ending.WORK_LIMIT
    assert found.work is not None
    assert found.work < 1.5
