"""A search as a person at a terminal follows it, and as Ctrl-C ends it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from mars_onnx.report.units import percent_text, time_text
from mars_onnx.search.find import Report
from mars_onnx.search.method import Progress

#: A search that is shorter than this is not worth a line.
_DELAY_S = 1.0
_REFRESHES_PER_S = 4


class SearchWatch:
    """Watches searches: a line on a terminal after a second, and Ctrl-C.

    The first Ctrl-C ends the search at its next report, with the best mapping so far; the second ends the program:
    KeyboardInterrupt leaves the watch. Only the main thread can be told, so only there signals are touched, and only
    where nobody else has claimed them.

    Args:
        console: Where the line is shown; ``None`` for nowhere. Nothing is shown on what is no terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console if console is not None and console.is_terminal else None
        self._interrupts = 0
        self._start_s = 0.0
        self._last = Progress("")

    @contextmanager
    def __call__(self) -> Iterator[Report]:
        """See :data:`mars_onnx.search.find.Watch`."""
        self._interrupts, self._last, self._start_s = 0, Progress("searching"), monotonic()
        with self._listening(), self._shown():
            yield self._report
        if self._interrupts > 1:
            raise KeyboardInterrupt

    def line(self) -> Text:
        """What is shown now; empty in the first second."""
        seconds = monotonic() - self._start_s
        if seconds < _DELAY_S and not self._interrupts:
            return Text()
        now = self._last
        parts = [now.stage if now.stage.isprintable() else repr(now.stage)]
        if now.done is not None:
            parts.append(percent_text(min(1.0, max(0.0, now.done))))
        if now.cost_s is not None:
            parts.append(f"best {time_text(now.cost_s)}")
        if now.lower_bound_s is not None:
            parts.append(f"bound {time_text(now.lower_bound_s)}")
            if now.cost_s:
                parts.append(f"gap {percent_text(max(0.0, 1 - now.lower_bound_s / now.cost_s))}")
        end = "stopping with it; Ctrl-C again quits" if self._interrupts else "Ctrl-C takes the best so far"
        return Text(f"[{seconds:.0f} s] {', '.join(parts)} ({end})", overflow="ellipsis", no_wrap=True)

    def _report(self, progress: Progress) -> None:
        # What a report leaves out is as it was, so that the line does not flicker.
        best = self._last.cost_s if progress.cost_s is None else progress.cost_s
        bound = self._last.lower_bound_s if progress.lower_bound_s is None else progress.lower_bound_s
        self._last = Progress(progress.stage, best, bound, progress.done)
        if self._interrupts:
            raise KeyboardInterrupt

    @contextmanager
    def _listening(self) -> Iterator[None]:
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or before is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            signal.default_int_handler(number, frame)

    def _shown(self) -> Live | nullcontext[None]:
        if self._console is None:
            return nullcontext()
        return Live(
            console=self._console,
            get_renderable=self.line,
            refresh_per_second=_REFRESHES_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
