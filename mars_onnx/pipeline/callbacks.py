"""What may happen between passes: verification, printing, timing, stopping."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO

import onnx
import onnx_ir as ir

from mars_onnx.errors import InvariantError, UsageError
from mars_onnx.pipeline.registry import Registry, default_registry, suggestion
from mars_onnx.pipeline.runner import PassRun
from mars_onnx.skeleton import skeleton
from mars_onnx.stages.verifiers import VERIFIERS, Verifier

ALL = "all"
_PRINTED_BYTES = 64
_SHOWN_VIOLATIONS = 10


@dataclass
class VerifyStages:
    """Check after every pass that the model is what its stage promises.

    A pass that declares ``stage: ClassVar[str]`` leaves that stage; a pass that does not must preserve the stage that
    it found.
    """

    verifiers: Mapping[str, Verifier] = field(default_factory=lambda: VERIFIERS)
    stage: str | None = None

    def __call__(self, run: PassRun) -> bool:
        self.stage = getattr(run.pass_, "stage", None) or self.stage
        verifier = self.verifiers.get(self.stage) if self.stage else None
        violations = verifier(run.model) if verifier else []
        if violations:
            shown = violations[:_SHOWN_VIOLATIONS]
            if len(violations) > len(shown):
                shown.append(f"and {len(violations) - len(shown)} more")
            raise InvariantError(f"{run.place}, left a model that is not {self.stage}:\n  " + "\n  ".join(shown))
        return False


@dataclass(frozen=True)
class PrintAfter:
    """Print the model as ONNX text after the passes named, or after all."""

    names: frozenset[str]
    stream: TextIO | None = None

    def __call__(self, run: PassRun) -> bool:
        if ALL in self.names or run.name in self.names:
            print(f"# after {run.name}\n{model_text(run.model)}", file=self.stream or sys.stdout)
        return False


@dataclass
class Timing:
    """Collect how long every pass took."""

    rows: list[tuple[str, float, bool]] = field(default_factory=list)

    def __call__(self, run: PassRun) -> bool:
        self.rows.append((run.name, run.seconds, run.modified))
        return False

    def table(self) -> str:
        """Return one line per pass and the total."""
        total = sum(seconds for _, seconds, _ in self.rows)
        width = max([len("total"), *(len(name) for name, _, _ in self.rows)])
        lines = [f"{'pass':{width}}   seconds   share"]
        for name, seconds, modified in self.rows:
            share = seconds / total if total else 0.0
            lines.append(f"{name:{width}}  {seconds:8.3f}  {share:6.1%}{'' if modified else '  (changed nothing)'}")
        return "\n".join([*lines, f"{'total':{width}}  {total:8.3f}"])


@dataclass(frozen=True)
class StopAfter:
    """End the pipeline after the pass named."""

    name: str

    def __call__(self, run: PassRun) -> bool:
        return run.name == self.name


def check_pass_names(
    option: str,
    names: Iterable[str],
    passes: Sequence[ir.passes.PassBase],
    registry: Registry | None = None,
) -> None:
    """Refuse a name (other than ``all``) that no pass of the pipeline bears.

    Raises:
        UsageError: The message names ``option`` and what would be right.
    """
    registry = registry or default_registry()
    known = [registry.name_of(type(each)) for each in passes]
    for name in names:
        if name != ALL and name not in known:
            raise UsageError(f"{option} {name}: no such pass in this pipeline{suggestion(name, known)}")


def model_text(model: ir.Model) -> str:
    """Return the model as ONNX text, readable: large weights are shown by type and shape alone."""
    return onnx.printer.to_text(skeleton(model, _PRINTED_BYTES))
