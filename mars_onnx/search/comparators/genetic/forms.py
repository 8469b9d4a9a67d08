"""What strategies of different layers, or on sets of different sizes, have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from mars_onnx.rules.base import Signature
from mars_onnx.rules.registry import rule_for
from mars_onnx.sharding.strategy import WHOLE, Resolution, Strategy

_REDUCTION = "reduction"
_CHANNELS = "D1"


@dataclass(frozen=True, slots=True)
class Form:
    """A strategy without the names of a layer's axes.

    Attributes:
        dimensions: What is split, outermost first: dimensions of the output, D0, D1, ..., or reductions by name.
        outer: Into how many shares the first of two.
        uneven: Whether shares are unequal.
        ring: Operand that goes round.
        scatter: Dimension along which partial sums are scattered.
    """

    dimensions: tuple[str, ...] = ()
    outer: int = 0
    uneven: bool = False
    ring: str | None = None
    scatter: str | None = None


@lru_cache(maxsize=65536)
def forms_of(signature: Signature, strategies: tuple[Strategy, ...]) -> tuple[Form, ...]:
    """The form of each strategy of a layer."""
    rule = rule_for(signature)
    names: dict[str, str] = {}
    dims = rule.outputs[0] if rule.outputs else None
    for position, dim in enumerate(dims or ()):
        for axis in dim.axes:
            names.setdefault(axis, f"D{position}")

    def form(strategy: Strategy) -> Form:
        if strategy == WHOLE:
            return Form()
        return Form(
            tuple(names.get(split.axis, f"{_REDUCTION} {split.axis}") for split in strategy.splits),
            len(strategy.splits[0].shares) if len(strategy.splits) > 1 else 0,
            any(len(set(split.shares)) > 1 for split in strategy.splits),
            strategy.ring.operand if strategy.ring else None,
            names.get(strategy.scatter_axis or "") if strategy.resolution is Resolution.REDUCE_SCATTER else None,
        )

    return tuple(form(strategy) for strategy in strategies)


def simple(form: Form) -> bool:
    """Whether a whole network may as well begin with it: nothing goes round, and reductions are split alone."""
    reductions = [name for name in form.dimensions if name.startswith(_REDUCTION)]
    return form.ring is None and (not reductions or len(form.dimensions) == 1)


def nearest(form: Form, known: Sequence[Form]) -> int:
    """The index of the form that is most like another: the layout that it leaves counts most."""
    places: dict[Form, int] = {}
    for place, other in enumerate(known):
        places.setdefault(other, place)
    for wanted in _ever_less(form):
        if wanted in places:
            return places[wanted]
        loose = [place for other, place in places.items() if replace(other, outer=0) == replace(wanted, outer=0)]
        if loose:
            return min(loose, key=lambda place: abs(known[place].outer - wanted.outer))
    return places.get(Form(), 0)


def _ever_less(form: Form) -> Iterator[Form]:
    """The form, and what is left of it where a layer does not have all that."""
    yield form
    yield replace(form, ring=None)
    kept = tuple(name for name in form.dimensions if not name.startswith(_REDUCTION))
    if kept != form.dimensions and form.scatter is not None:
        kept = tuple(dict.fromkeys((*kept, form.scatter)))
    yield Form(kept, form.outer if len(kept) > 1 else 0, form.uneven and len(kept) < 2)
    if len(kept) > 1:
        yield Form(kept[:1])
        yield Form(kept[1:])
    if kept:
        yield Form((_CHANNELS,))
