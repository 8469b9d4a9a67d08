"""JSON Schemas of the pool and design formats, for editors.

``python -m mars_onnx.pool.schema [FOLDER]`` writes them (to ``hwdb/schema`` of this checkout by default); a test says
that the ones in the repository are up to date.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mars_onnx.data import data_folder
from mars_onnx.pool.format import DESIGN_FORMAT, POOL_FORMAT, DesignFile, PoolFile
from mars_onnx.pool.parameters import own_models


def _schema(root: type[BaseModel], identifier: str) -> dict[str, Any]:
    """The schema of a format. What a design's ``parameters`` may be depends on its ``model``.

    A model that mars_onnx does not ship is a plugin's: its parameters stay open here, and are checked on loading.
    """
    own = own_models()
    models: list[type[BaseModel]] = [root, *own.values()]
    _, made = models_json_schema([(model, "validation") for model in models], by_alias=True)
    definitions = made["$defs"]
    conditions = [
        {
            "if": {"properties": {"model": {"const": name}}},
            "then": {"properties": {"parameters": {"$ref": f"#/$defs/{kind.__name__}"}}},
        }
        for name, kind in sorted(own.items())
    ]
    top = definitions.pop(root.__name__)
    for design in (top, definitions.get("DesignEntry", {})):
        if "model" in design.get("properties", {}):
            design["allOf"] = conditions
    # Internal docstrings explain the Python side; a reader of the JSON has the field descriptions.
    for definition in definitions.values():
        definition["description"] = definition.get("description", "").split("\n")[0]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{identifier.replace('/', ':')}",
        **top,
        "$defs": definitions,
    }


def schemas() -> dict[str, str]:
    """Text of every schema, by file name."""
    made = {
        "pool.schema.json": _schema(PoolFile, POOL_FORMAT),
        "design.schema.json": _schema(DesignFile, DESIGN_FORMAT),
    }
    return {name: json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in made.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the schemas."""
    parser = argparse.ArgumentParser(prog="python -m mars_onnx.pool.schema", description="Write the JSON Schemas.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to; default: schema/ of the shipped hwdb")
    options = parser.parse_args(arguments)
    folder: Path = options.folder or data_folder("hwdb") / "schema"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
