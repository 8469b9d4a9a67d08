"""Tables in Markdown, and writing them between two markers of a document."""

from collections.abc import Sequence
from pathlib import Path

from mars_onnx.errors import UsageError


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """A table; its last ``numbers`` columns are aligned to the right."""
    texts = len(headings) - numbers
    rule = ["---"] * texts + ["--:"] * numbers
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (headings, rule, *rows)) + "\n"


def between_markers(document: str, name: str, text: str) -> str:
    """The document with ``text`` in the place between ``<!-- name -->`` and ``<!-- /name -->``.

    Raises:
        UsageError: The document does not have both.
    """
    before, opening, rest = document.partition(f"<!-- {name} -->")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    if not closing:
        raise UsageError(f"the document has no place marked <!-- {name} --> ... <!-- /{name} -->")
    return f"{before}{opening}\n{text.strip()}\n{closing}{after}"


def write_between_markers(path: Path, name: str, text: str) -> None:
    """Put ``text`` into a file, in the place of that name."""
    path.write_text(between_markers(path.read_text(encoding="utf-8"), name, text), encoding="utf-8")
