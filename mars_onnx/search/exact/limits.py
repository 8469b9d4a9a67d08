"""When a search has to end, and when it says where it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic

from mars_onnx.search.exact.work import Meter
from mars_onnx.search.method import Ending, SearchOptions

#: Seconds between two reports of where the search is.
_REPORT_S = 0.2
#: Which part of a limit of time goes into the search: what it is in the middle of takes time too, and what comes after.
_SEARCHING = 0.98


@dataclass(eq=False)
class Limits:
    """Limits of a search, and what is used up of them. Time counts only where somebody has set a limit to it.

    Attributes:
        options: Say what the limits are.
        meter: Counts work.
        started: When the search has begun, on the clock of :func:`time.monotonic`.
        reported: When it last said where it is.
    """

    options: SearchOptions
    meter: Meter = field(default_factory=Meter)
    started: float = field(default_factory=monotonic)
    reported: float = 0.0

    @property
    def over(self) -> Ending | None:
        """Which limit is reached, if one is."""
        work, seconds = self.options.work_limit, self.options.time_limit_s
        if work is not None and self.meter.units > work:
            return Ending.WORK_LIMIT
        late = seconds is not None and monotonic() - self.started > seconds * _SEARCHING
        return Ending.TIME_LIMIT if late else None

    @property
    def spent(self) -> float:
        """Which part of the limits is used up; nothing where there are none."""
        work, seconds = self.options.work_limit, self.options.time_limit_s
        by_work = 0.0 if work is None else self.meter.units / max(work, 1e-9)
        return by_work if seconds is None else max(by_work, (monotonic() - self.started) / max(seconds, 1e-9))

    def due(self) -> bool:
        """Whether it is time to say again where the search is."""
        now = monotonic()
        due = now - self.reported > _REPORT_S
        self.reported = now if due else self.reported
        return due
