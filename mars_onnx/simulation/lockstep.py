"""Steps that all members of the sets concerned begin and end together, as tasks of no length between the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mars_onnx.simulation.core import Run, run_tasks
from mars_onnx.simulation.program import Program
from mars_onnx.simulation.sharing import Demand


def run_in_lockstep(
    program: Program,
    seconds: Sequence[float],
    followers: Sequence[Sequence[int]],
    demands: Mapping[int, Demand] | None = None,
    duration: Callable[[int, float], float] | None = None,
) -> Run:
    """As :func:`mars_onnx.simulation.core.run_tasks`, with steps.

    Before every step stands a barrier. It waits for all tasks of the steps before it of all sets that take part, also
    for those on accelerators that have nothing to do in the step; and all tasks of the step wait for it.

    Raises:
        InvariantError: The steps contradict the order of a file.
    """
    count = len(program.tasks)
    waiting: list[list[int]] = [list(own) for own in followers]
    steps: dict[int, list[int]] = {}
    for task in program.tasks:
        if task.step is not None:
            steps.setdefault(task.step, []).append(task.index)
    #: Per set the tasks of its last step.
    last: dict[str, list[int]] = {}
    for step in sorted(steps):
        barrier = len(waiting)
        waiting.append(steps[step])
        sets = dict.fromkeys(program.sets[rank] for index in steps[step] for rank in program.tasks[index].ranks)
        for before in dict.fromkeys(index for own in sets for index in last.get(own, ())):
            waiting[before].append(barrier)
        last.update(dict.fromkeys(sets, steps[step]))
    barriers = len(waiting) - count

    def lasting(task: int, start_s: float) -> float:
        if task >= count:
            return 0.0
        return seconds[task] if duration is None else duration(task, start_s)

    run = run_tasks([*seconds, *[0.0] * barriers], waiting, demands, lasting)
    return Run(
        run.start_s[:count],
        run.end_s[:count],
        [before if before < count else run.waited_for[before] for before in run.waited_for[:count]],
        [entry for entry in run.log if -count <= entry < count],
    )
