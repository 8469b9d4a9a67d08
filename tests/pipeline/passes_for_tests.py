"""Passes with every kind of option, for the tests of the pipeline."""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import onnx_ir as ir

from mars_onnx.errors import InputError
from mars_onnx.pipeline.registry import RegisteredPass, Registry, default_registry


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark-blue"


@dataclass(frozen=True)
class Options(ir.passes.InPlacePass):
    """Take one option of every type."""

    flag: bool = False
    count: int = 3
    ratio: float = 0.5
    note: str = "plain"
    folder: Path = Path("here")
    search: Literal["exact", "greedy"] = "exact"
    colour: Colour = Colour.RED
    limit: int | None = None
    label: str | None = "x"
    dim: tuple[str, ...] = ()
    axes: tuple[int, ...] = (1, 2)
    pool: object = None

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, modified=False)


@dataclass(frozen=True)
class Required(ir.passes.InPlacePass):
    """Need an option."""

    size: int

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        return ir.passes.PassResult(model, modified=False)


@dataclass(frozen=True)
class Rename(ir.passes.InPlacePass):
    """Rename the graph and claim the stage "renamed"."""

    stage: ClassVar[str] = "renamed"
    name: str = "renamed"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = model.graph.name != self.name
        model.graph.name = self.name
        return ir.passes.PassResult(model, modified)


@dataclass(frozen=True)
class Fail(ir.passes.InPlacePass):
    """Fail as asked."""

    how: Literal["bug", "input", "requires"] = "bug"

    def requires(self, model: ir.Model) -> None:
        if self.how == "requires":
            raise ir.passes.PreconditionError("this model is not canonical")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if self.how == "input":
            raise InputError("model.onnx: no good")
        raise KeyError("oops")


REGISTRY = Registry(
    [
        *(
            RegisteredPass(each.__name__.lower(), f"{each.__module__}:{each.__qualname__}", "tests")
            for each in (Options, Required, Rename, Fail)
        ),
        *(entry for entry in default_registry() if entry.distribution == "onnx-ir"),
    ]
)
