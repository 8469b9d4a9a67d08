"""The run itself: tasks, what waits for what, and a heap of ends. Knows nothing of what the tasks are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from mars_onnx.errors import InvariantError
from mars_onnx.simulation.sharing import Channels, Demand


@dataclass(frozen=True, slots=True)
class Run:
    """When tasks ran.

    Attributes:
        start_s: Per task.
        end_s: Per task.
        waited_for: Per task the one whose end let it start; -1 for none.
        log: Starts and ends in the order in which they happened: task ``t`` starts as ``t`` and ends as ``~t``. At one
            moment ends come before starts.
    """

    start_s: list[float]
    end_s: list[float]
    waited_for: list[int]
    log: list[int]


def run_tasks(
    seconds: Sequence[float],
    followers: Sequence[Sequence[int]],
    demands: Mapping[int, Demand] | None = None,
    duration: Callable[[int, float], float] | None = None,
) -> Run:
    """Start every task as soon as all it waits for have ended.

    Args:
        seconds: Per task, how long it takes alone.
        followers: Per task, those that wait for it.
        demands: Per task that shares channels, which and how much of them; ``None``: nobody shares anything.
        duration: Called with a task and the moment it starts, where the seconds depend on that.

    Raises:
        InvariantError: Tasks wait for each other in a circle.
    """
    count = len(seconds)
    waiting = [0] * count
    for own in followers:
        for task in own:
            waiting[task] += 1
    start_s, end_s = [0.0] * count, [0.0] * count
    waited_for = [-1] * count
    log: list[int] = []
    heap: list[tuple[float, int]] = []
    ready = [task for task in range(count) if not waiting[task]]
    flows = _Flows(demands, seconds, end_s, heap) if demands else None
    now = 0.0
    done = 0
    while True:
        for task in ready:
            start_s[task] = now
            log.append(task)
            if flows is not None and task in flows.demands:
                flows.start(task)
                continue
            end = now + (seconds[task] if duration is None else duration(task, now))
            end_s[task] = end
            heappush(heap, (end, task))
        if flows is not None:
            flows.settle(now)
        if not heap:
            break
        now = heap[0][0]
        ready = []
        while heap and heap[0][0] == now:
            task = heappop(heap)[1]
            if end_s[task] != now or (flows is not None and not flows.finish(task)):
                continue  # it has been slowed down or sped up since
            log.append(~task)
            done += 1
            for follower in followers[task]:
                waiting[follower] -= 1
                if not waiting[follower]:
                    waited_for[follower] = task
                    ready.append(follower)
        ready.sort()
    if done < count:
        raise InvariantError(f"{count - done} of {count} tasks wait for each other in a circle")
    return Run(start_s, end_s, waited_for, log)


class _Flows:
    """Tasks that share channels: what is left of each, and when it will end at the present rate."""

    def __init__(
        self,
        demands: Mapping[int, Demand],
        seconds: Sequence[float],
        end_s: list[float],
        heap: list[tuple[float, int]],
    ) -> None:
        self.demands = demands
        self._channels = Channels(demands)
        self._seconds = seconds
        self._end_s = end_s
        self._heap = heap
        #: Per running task: seconds left at rate 1, since when, and its rate.
        self._running: dict[int, tuple[float, float, float]] = {}

    def start(self, task: int) -> None:
        """A task starts; :meth:`settle` says when it ends."""
        self._running[task] = (self._seconds[task], 0.0, 0.0)
        self._channels.add(task)

    def finish(self, task: int) -> bool:
        """A task's end has come; whether that is news."""
        if task not in self.demands:
            return True
        if self._running.pop(task, None) is None:
            return False
        self._channels.remove(task)
        return True

    def settle(self, now: float) -> None:
        """New ends for those whose rate has changed."""
        for task, rate in self._channels.changed().items():
            left, since, before = self._running[task]
            left = max(0.0, left - (now - since) * before)
            self._running[task] = (left, now, rate)
            self._end_s[task] = now + (left if rate == 1.0 else left / rate)
            heappush(self._heap, (self._end_s[task], task))
