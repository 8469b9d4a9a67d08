"""Running passes one after the other, with one kind of callback between them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from mars_onnx.errors import InvariantError, MarsError, UsageError
from mars_onnx.pipeline.registry import Registry, default_registry


@dataclass(frozen=True)
class PassRun:
    """What a callback learns after a pass.

    Attributes:
        name: The registered name of the pass.
        pass_: The pass.
        previous: Names of the passes that ran before it.
        model: What it left.
        modified: Whether it says that it changed something.
        seconds: How long it took, without callbacks.
    """

    name: str
    pass_: ir.passes.PassBase
    previous: tuple[str, ...]
    model: ir.Model
    modified: bool
    seconds: float

    @property
    def place(self) -> str:
        """The pass and what ran before it, for messages."""
        return place(self.name, self.previous)


Callback = Callable[[PassRun], bool]
"""Called after every pass, in the order given; verification, printing, timing and stopping are all callbacks. True ends
the pipeline after this pass (the other callbacks still see it)."""


def place(name: str, previous: Sequence[str]) -> str:
    """Return ``the pass 'b', after a`` for messages."""
    return f"the pass {name!r}, " + (f"after {', '.join(previous)}" if previous else "the first of the pipeline")


def run_pipeline(
    model: ir.Model,
    passes: Sequence[ir.passes.PassBase],
    callbacks: Sequence[Callback] = (),
    registry: Registry | None = None,
) -> ir.passes.PassResult:
    """Run ``passes`` in order.

    Raises:
        MarsError: As raised by a pass or a callback.
        UsageError: A pass refuses its place in the pipeline (its ``requires`` raised).
        InvariantError: A pass raised anything else; the message names it and those before it.
    """
    registry = registry or default_registry()
    modified = False
    previous: tuple[str, ...] = ()
    for pass_ in passes:
        name = registry.name_of(type(pass_))
        start = time.perf_counter()
        result = _run_one(pass_, model, place(name, previous))
        seconds = time.perf_counter() - start
        model = result.model
        modified = modified or result.modified
        run = PassRun(name, pass_, previous, model, result.modified, seconds)
        answers = [callback(run) for callback in callbacks]
        if any(answers):
            break
        previous = (*previous, name)
    return ir.passes.PassResult(model, modified)


def _run_one(pass_: ir.passes.PassBase, model: ir.Model, where: str) -> ir.passes.PassResult:
    try:
        return pass_(model)
    except MarsError:
        raise
    except ir.passes.PreconditionError as error:
        # onnx_ir wraps whatever ``requires`` raised.
        if isinstance(error.__cause__, MarsError):
            raise error.__cause__ from None
        reason = f"{error}: {error.__cause__}" if error.__cause__ else str(error)
        raise UsageError(f"{where}, cannot run on this model: {reason}") from error
    except Exception as error:  # a pass may be anybody's code
        raise InvariantError(f"{where}, failed: {type(error).__name__}: {error}") from error
