"""The output folder: written whole or not at all, and never over a folder that is not ours."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mars_onnx.errors import InputError, UsageError
from mars_onnx.runtime.plan_file import FILE_NAME as PLAN_NAME
from mars_onnx.sharding.mapping import PLAN_SCHEMA

REPORT_NAME = "report.json"
PAGE_NAME = "report.html"
TRACE_NAME = "trace.json"
#: Everything that is ever written to an output folder: these, and models named after accelerators.
_OUR_NAMES = frozenset({PLAN_NAME, REPORT_NAME, PAGE_NAME, TRACE_NAME})
_OUR_SUFFIXES = (".onnx", ".onnx.data")


def check_target(target: Path) -> None:
    """Refuse, before any work is done, what must not be overwritten.

    Raises:
        UsageError: The target is a file, or a folder with something in it that is not ours.
    """
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent}: no such folder to put {target.name!r} into")
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"{target}: there is a file of this name; name another folder with -o")
    names = sorted(entry.name for entry in target.iterdir())
    if not names:
        return
    if not _has_our_plan(target / PLAN_NAME):
        raise UsageError(f"{target}: this folder has no {PLAN_NAME} of mars_onnx and is not overwritten; name another")
    foreign = [name for name in names if not _is_ours(target / name)]
    if foreign:
        raise UsageError(
            f"{target}: holds {', '.join(map(repr, foreign[:3]))}, which mars_onnx did not write; move it away first"
        )


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A fresh folder beside ``target`` that takes its place when the block ends well, and vanishes otherwise."""
    check_target(target)
    target = target.resolve()
    try:
        fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(f"{target.parent}: no folder can be made there: {error.strerror}") from error
    try:
        yield fresh
        fresh.chmod(0o755)
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            target.replace(old / target.name)
            fresh.replace(target)
            shutil.rmtree(old)
        else:
            fresh.replace(target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _is_ours(path: Path) -> bool:
    named = path.name in _OUR_NAMES or path.name.endswith(_OUR_SUFFIXES)
    return named and path.is_file() and not path.name.startswith(".")


def _has_our_plan(path: Path) -> bool:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("schema") == PLAN_SCHEMA
