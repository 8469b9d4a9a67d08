"""Every rule, on random operators of its kind, cut in random ways, against the whole operator."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from onnx.shape_inference import InferenceError

from mars_onnx.rules.registry import operators
from tests.rules.cases import GENERATORS
from tests.rules.generator import random_case, random_cuts
from tests.rules.harness import RefusedError, UnsupportedError, check_rule, rule_of


def try_one(op_type: str, seed: int) -> str:
    """One random trial; what became of it."""
    rng = np.random.default_rng([seed, *op_type.encode()])
    try:
        model, feeds = random_case(op_type, rng).model()
    except InferenceError:
        # The operator does not exist for this element type.
        return "unsupported"
    rule, _ = rule_of(model)
    if not rule.axes:
        return "whole"
    try:
        check_rule(model, random_cuts(rule.axes, rng), rng, feeds)
    except RefusedError:
        return "refused"
    except UnsupportedError:
        return "unsupported"
    return "checked"


def try_many(op_type: str, seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        try:
            outcomes[try_one(op_type, seed)] += 1
        except Exception as error:
            error.add_note(f"{op_type}, seed {seed}")
            raise
    assert outcomes["checked"] >= len(seeds) // 4, outcomes


def test_every_operator_is_generated() -> None:
    assert {name for domain, name in operators() if not domain} == set(GENERATORS)


@pytest.mark.parametrize("op_type", sorted(GENERATORS))
def test_random(op_type: str) -> None:
    try_many(op_type, range(6))


@pytest.mark.slow
@pytest.mark.parametrize("op_type", sorted(GENERATORS))
def test_random_long(op_type: str) -> None:
    try_many(op_type, range(1000, 1100))
