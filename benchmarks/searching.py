"""What the benchmarks of the search share: problems, pools made of shipped ones, one method on one problem."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import networkx  # noqa: F401 - imported by the pool when it is first asked for a route
import numpy.ma  # noqa: F401 - imported by NumPy when it is first asked what is different among some numbers
import onnx
import onnx_ir as ir

from mars_onnx.data import data_folder
from mars_onnx.models import load_builder
from mars_onnx.pipeline.runner import run_pipeline
from mars_onnx.pipeline.text import parse_pipeline
from mars_onnx.pool.loader import load_pool
from mars_onnx.pool.topology import Pool
from mars_onnx.search.evaluate import evaluate
from mars_onnx.search.method import SearchOptions
from mars_onnx.search.problem import Problem, problem_of
from mars_onnx.search.registry import METHODS
from mars_onnx.stages import attachments


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method did with a problem.

    Attributes:
        cost_s: Latency of its mapping, or the time between two inferences of a stream, by the common judge.
        gap: What it could not prove of it; ``None`` if it proves nothing.
        ending: Why it stopped.
        cpu_s: CPU seconds of the search, the model being loaded and canonical.
        peak_mib: Most memory that the process held, the model included.
        sets: Members of each set of the mapping.
    """

    cost_s: float
    gap: float | None
    ending: str
    cpu_s: float
    peak_mib: float
    sets: tuple[int, ...]


class Results:
    """Outcomes by a text that names them, kept in a file so that a run can be continued."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, dict[str, Any]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._known[entry["key"]] = entry["value"]

    def get(self, key: str) -> dict[str, Any] | None:
        """What was noted under a key."""
        return self._known.get(key)

    def note(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a value, in the file too."""
        self._known[key] = dict(value)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, "value": value}) + "\n")


def canonical_problem(proto: onnx.ModelProto, pool: Pool) -> Problem:
    """The problem of a model on a pool."""
    model = ir.from_proto(proto)
    attachments.set_pool(model, pool)
    return problem_of(run_pipeline(model, parse_pipeline("canonicalize", {}).passes, []).model)


def shipped_problem(name: str, pool: Pool) -> Problem:
    """The problem of a reference network on a pool."""
    return canonical_problem(load_builder().build(name), pool)


def builder_module(name: str) -> Any:
    """A module of the folder ``models``, as its builder imports it."""
    return importlib.import_module(f"{load_builder().__package__}.{name}")


def edited_pool(name: str, edit: Callable[[dict[str, Any]], None]) -> Pool:
    """A shipped pool after a change of its document."""
    document = json.loads((data_folder("hwdb") / f"{name}.json").read_text(encoding="utf-8"))
    edit(document)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return load_pool(path)


def first_accelerators(name: str, count: int) -> Pool:
    """The first accelerators of a shipped pool, with the links between them."""

    def edit(document: dict[str, Any]) -> None:
        gone = {entry["id"] for entry in document["accelerators"][count:]}
        document["accelerators"] = document["accelerators"][:count]
        for link in document["links"]:
            link["between"] = [pair for pair in link["between"] if not gone & set(pair)]
        document["links"] = [link for link in document["links"] if link["between"]]
        ends = {end for link in document["links"] for pair in link["between"] for end in pair}
        for nodes in ("hosts", "switches"):
            document[nodes] = [node for node in document.get(nodes, ()) if node["id"] in ends]

    return edited_pool(name, edit)


def search_here(problem: Problem, pool: Pool, method: str, options: SearchOptions) -> Outcome:
    """Let a method choose, in this process."""
    start = time.process_time()
    result = METHODS[method].choose(problem, pool, options)
    cpu_s = time.process_time() - start
    # The judge speaks again, whatever the method says of itself.
    cost_s = evaluate(problem, pool, result.mapping).cost_s(options.objective)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sets = tuple(len(own.members) for own in result.mapping.sets)
    return Outcome(cost_s, result.gap, str(result.ending), cpu_s, peak_mib, sets)


def search_apart(problem: Problem, pool: Pool, method: str, options: SearchOptions) -> Outcome:
    """The same in a process of its own, so that no method finds what another one has remembered.

    Raises:
        RuntimeError: The process ended without an answer.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, problem, pool, method, options))
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
    except EOFError:
        raise RuntimeError(f"{method} ended without an answer") from None
    finally:
        process.join()
    if not isinstance(outcome, Outcome):
        raise RuntimeError(f"{method}: {outcome}")
    return outcome


def _child(sender: Connection, problem: Problem, pool: Pool, method: str, options: SearchOptions) -> None:
    sender.send(search_here(problem, pool, method, options))


def plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON has it."""
    return asdict(outcome)


def proof(facts: Mapping[str, Any]) -> str:
    """How an exact search ended, in a cell."""
    return "0, proven" if facts["ending"] == "proven" else f"{facts['gap']:.2%}, {facts['ending']}"


@contextmanager
def figure(path: Path, panels: int, size: tuple[float, float]) -> Iterator[Sequence[Any]]:
    """Axes side by side, saved in the end. Needs matplotlib, which only benchmarks do."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["font.size"] = 8
    drawing = Figure(figsize=size, dpi=100, layout="constrained")
    axes = drawing.subplots(1, panels, squeeze=False)[0]
    for own in axes:
        own.spines[["top", "right"]].set_visible(False)
    yield axes
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, pil_kwargs={"optimize": True})
