"""The page about operators names every operator with a rule, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import onnx.defs

from mars_onnx.rules.registry import operators

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_page_and_registry_agree() -> None:
    words = set(re.findall(r"\b[A-Z]\w+", PAGE.read_text(encoding="utf-8")))
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    assert words & known == {name for domain, name in operators() if not domain}
