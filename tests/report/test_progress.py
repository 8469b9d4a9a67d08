"""What a person sees of a search, and what Ctrl-C does."""

from __future__ import annotations

import io
import signal
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from mars_onnx.report import progress
from mars_onnx.report.progress import SearchWatch
from mars_onnx.search.method import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])

    def set_time(seconds: float) -> None:
        now[0] = seconds

    return set_time


def test_the_line(clock: Callable[[float], None]) -> None:
    watch = SearchWatch()
    with watch() as report:
        report(Progress("exact: sets"))
        assert watch.line().plain == ""
        clock(2.0)
        assert watch.line().plain == "[2 s] exact: sets (Ctrl-C takes the best so far)"
        report(Progress("exact: sets", cost_s=0.002, lower_bound_s=0.0015, done=0.25))
        assert "exact: sets, 25.0%, best 2 ms, bound 1.5 ms, gap 25.0%" in watch.line().plain
        report(Progress("exact: \x1b[31mlayers"))
        assert "best 2 ms, bound 1.5 ms" in watch.line().plain
        assert "\x1b" not in watch.line().plain
        report(Progress("almost", cost_s=0.001, lower_bound_s=0.001 * (1 - 1e-6)))
        assert "gap 1.0e-06" in watch.line().plain


def test_the_first_interrupt_waits_for_a_report() -> None:
    watch = SearchWatch()
    before = signal.getsignal(signal.SIGINT)
    with watch() as report:
        report(Progress("a"))
        signal.raise_signal(signal.SIGINT)
        assert "stopping with it; Ctrl-C again quits" in watch.line().plain
        with pytest.raises(KeyboardInterrupt):
            report(Progress("b"))
    assert signal.getsignal(signal.SIGINT) is before
    with watch() as report:
        report(Progress("of another search"))


def test_the_second_interrupt_ends_the_program() -> None:
    """Also if the method takes it for the first one."""
    caught = []

    def search() -> None:
        with SearchWatch()():
            signal.raise_signal(signal.SIGINT)
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                caught.append(True)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        search()
    assert caught == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_signals_of_others_are_left_alone() -> None:
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(True))
    try:
        with SearchWatch()() as report:
            signal.raise_signal(signal.SIGINT)
            report(Progress("a"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [True]
    failed = []

    def elsewhere() -> None:
        try:
            with SearchWatch()() as report:
                report(Progress("a"))
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert failed == []


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_shows_it(terminal: bool, clock: Callable[[float], None]) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with SearchWatch(console)() as report:
        clock(3.0)
        report(Progress("exact: sets"))
    assert ("exact: sets" in console.file.getvalue()) is terminal
    if not terminal:
        assert console.file.getvalue() == ""
