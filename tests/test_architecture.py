"""What docs/architecture.md promises about the code as a whole, read from there so that neither can drift."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mars_onnx"
SOURCES = sorted(
    path for folder in ("mars_onnx", "passes", "models", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
MOST_LINES = 400
#: Files that may be longer, each with its reason.
LONG_FILES: dict[str, str] = {}
HEAVY = {"jinja2", "ml_dtypes", "networkx", "numpy", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "pydantic", "rich"}


def module_table() -> list[tuple[set[str], str]]:
    """Rows of the table of modules, lowest first: the names in its first cell, and what they know nothing of."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.partition("## Modules, lowest first")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [(set(re.findall(r"`(\w+)`", cells[0])), cells[2].strip()) for cells in rows[2:]]


LEVELS = {name: level for level, (names, _) in enumerate(module_table()) for name in names}


def module_of(path: Path) -> str:
    """The module of the table that a file of the package belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of everything imported anywhere in a file, except for annotations alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_module_stands_in_the_table() -> None:
    found = {module_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert found == set(LEVELS)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_imports_run_one_way(path: Path) -> None:
    own = module_of(path)
    if own == "__init__":
        pytest.skip("the package's front door opens onto the compiler when it is asked to")
    for name in imports(parsed(path)):
        first, *rest = name.split(".")
        assert first != "mars_passes", f"{path}: passes are reached by entry point only"
        if first != "mars_onnx" or not rest or rest[0] not in LEVELS:
            continue
        assert LEVELS[rest[0]] <= LEVELS[own], f"{name_of(path)} imports {name}, which stands below it in the table"


EXACT = PACKAGE / "search" / "exact"


def exact_levels() -> dict[str, int]:
    """Folders of exact search by their level, as docs/search.md has them."""
    section = (ROOT / "docs" / "search.md").read_text(encoding="utf-8").partition("## Where things are")[2]
    return {name: level for level, name in enumerate(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))}


def test_every_folder_of_exact_search_stands_in_its_table() -> None:
    assert {path.parent.name for path in EXACT.glob("*/*.py")} == set(exact_levels())


@pytest.mark.parametrize("path", sorted(EXACT.glob("*/*.py")), ids=name_of)
def test_imports_inside_exact_search_run_one_way(path: Path) -> None:
    levels = exact_levels()
    prefix = "mars_onnx.search.exact."
    for name in imports(parsed(path)):
        if name.startswith(prefix):
            folder = name.removeprefix(prefix).split(".")[0]
            assert folder == "work" or levels.get(folder, len(levels)) <= levels[path.parent.name], name


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=name_of)
def test_modules_know_nothing_of_onnx_where_the_table_says_so(path: Path) -> None:
    ignorant = {name for names, unknown in module_table() if unknown.split(",")[0] == "ONNX" for name in names}
    assert {"geometry", "pool", "redistribution"} <= ignorant
    if module_of(path) in ignorant:
        found = {name.partition(".")[0] for name in imports(parsed(path))}
        assert not found & {"onnx", "onnx_ir", "onnxruntime", "onnxscript"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES or name_of(path) in LONG_FILES, f"{name_of(path)} has {lines} lines"


def test_the_list_of_long_files_is_up_to_date() -> None:
    assert all(len((ROOT / name).read_text(encoding="utf-8").splitlines()) > MOST_LINES for name in LONG_FILES)
    assert all(LONG_FILES.values())


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_everything_public_is_documented(path: Path) -> None:
    tree = parsed(path)
    assert ast.get_docstring(tree), f"{name_of(path)} has no docstring"
    definitions = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in tree.body:
        if isinstance(node, definitions) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name_of(path)}: {node.name} has no docstring"


@pytest.mark.parametrize("command", [["-m", "mars_onnx", "--help"], ["-c", "import mars_onnx"]], ids=" ".join)
def test_help_and_import_are_light(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "mars_onnx" in imported
    assert not imported & HEAVY
