"""JSON files with positions: reading one safely, and collecting everything wrong in it for one message.

The standard parser decides what is JSON. Only when there is something to complain about are the positions found, by
one linear walk over the tokens of a text that the parser has accepted. (A YAML parser gives positions too, but takes a
hundred times as long and trips over tabs and long keys.)
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from mars_onnx.errors import InputError

Place = tuple[str | int, ...]

MAX_PROBLEMS = 20
_MAX_SHOWN = 80
_PIECE_BYTES = 2**20
#: Most commas in a file, as a cheap bound of its number of values: each may become a problem with a message.
MAX_COMMAS = 200_000
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)


def suggestion(wrong: str, right: list[str] | tuple[str, ...], *, listed: int = 12) -> str:
    """What would be right instead: the nearest name if one is near, else all of them (if not too many)."""
    wrong = wrong[:_MAX_SHOWN]  # comparing takes time in proportion to the length
    near = get_close_matches(wrong, right, n=1) or get_close_matches(wrong.lower(), right, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    known = ", ".join(sorted(right)[:listed]) + (", ..." if len(right) > listed else "")
    return f"known are: {known}" if right else "none is known"


def unknown(what: str, wrong: str, right: tuple[str, ...]) -> str:
    """Message about a name that nothing has."""
    return f"no {what} is called {_cut(wrong)!r}; {suggestion(wrong, right)}"


def place_text(place: Place) -> str:
    """A place in the file as a person writes it: ``links[2].between[0]``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_cut(step)}" for step in place)
    return text.removeprefix(".")


def _cut(text: str) -> str:
    """Text from a file, fit for a terminal."""
    text = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
    return text if text.isprintable() else repr(text)


@dataclass
class Document:
    """One JSON file (an object), and the problems found in it so far.

    Attributes:
        path: As the user named it.
        text: Its text.
        data: Its content.
    """

    path: Path
    text: str
    data: dict[str, object]
    _problems: list[tuple[int, str, str | Callable[[], str]]] = field(default_factory=list)

    @cached_property
    def _offsets(self) -> tuple[dict[Place, int], list[tuple[Place, int]]]:
        return _positions(self.text)

    def line(self, place: Place) -> int:
        """Line of a place; of the nearest thing around it if the place itself is not in the file."""
        offsets = self._offsets[0]
        while place and place not in offsets:
            place = place[:-1]
        return self._line_at(offsets.get(place, 0))

    def _line_at(self, offset: int) -> int:
        return bisect_left(self._line_ends, offset) + 1

    @cached_property
    def _line_ends(self) -> list[int]:
        return [match.start() for match in re.finditer("\n", self.text)]

    def add(self, place: Place, message: str | Callable[[], str]) -> None:
        """Note a problem at a place. A message that is costly to make is given as a function, called if it is shown."""
        self._problems.append((self.line(place), place_text(place), message))

    def add_duplicates(self) -> None:
        """Note every key that an object has twice: parsers keep the last, people read the first."""
        for place, offset in self._offsets[1]:
            message = "this key is given twice; keep one of them"
            self._problems.append((self._line_at(offset), place_text(place), message))

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong so far."""
        return not self._problems

    def messages(self) -> list[str]:
        """The first problems by line, and how many more there are."""
        by_line = sorted(self._problems, key=lambda problem: problem[0])
        shown = [
            f"{self.path}:{line}: {where + ': ' if where else ''}{message if isinstance(message, str) else message()}"
            for line, where, message in by_line[:MAX_PROBLEMS]
        ]
        more = len(by_line) - len(shown)
        return [*shown, f"{self.path}: ... and {more} more problems"] if more else shown


def raise_problems(messages: list[str]) -> None:
    """Raise all messages as one error.

    Raises:
        InputError: There are any.
    """
    if messages:
        raise InputError("\n".join(messages))


def read_document(path: Path, max_bytes: int) -> Document:
    """Read a JSON file that holds one object.

    Raises:
        InputError: It cannot be read, is too large, no UTF-8, no JSON (with line and column) or no object.
    """
    text = read_text(path, max_bytes)
    if text.count(",") > MAX_COMMAS:
        raise InputError(f"{path}: more than {MAX_COMMAS} values, the limit for such a file; is it the right one?")
    return parse_document(text, path)


def _at_most(file: BinaryIO, count: int) -> bytes:
    """The first bytes of a file. In pieces: ``read`` makes a buffer of all that it may read first."""
    pieces: list[bytes] = []
    while count > 0 and (piece := file.read(min(count, _PIECE_BYTES))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


def read_text(path: Path, max_bytes: int) -> str:
    """Read a text file.

    Raises:
        InputError: It cannot be read, is too large, or no UTF-8.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path}: this is a folder; name a JSON file")
        with path.open("rb") as file:
            raw = _at_most(file, max_bytes + 1)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(raw) > max_bytes:
        raise InputError(f"{path}: larger than {max_bytes} bytes, the limit for such a file; is it the right one?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: byte {error.start} is not UTF-8; save the file as UTF-8") from error


def parse_document(text: str, path: Path) -> Document:
    """Parse JSON text that holds one object; ``path`` is what messages call it.

    Raises:
        InputError: It is no JSON (with line and column), or no object.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice.append("")
        return found

    try:
        data = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}{_hint(text, error)}") from error
    except RecursionError:
        raise InputError(f"{path}: not usable: nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{path}: not usable: {error}") from error
    if not isinstance(data, dict):
        raise InputError(f'{path}:1: not usable: the file should hold one object, {{"schema": ...}}')
    document = Document(path, text, data)
    if twice:
        document.add_duplicates()
    return document


def _hint(text: str, error: json.JSONDecodeError) -> str:
    """What people who write JSON by hand get wrong."""
    rest = text[error.pos : error.pos + 2]
    before = text[: error.pos].rstrip()[-1:]
    if rest[:1] in "}]" and rest and before == ",":
        return "; remove the comma before it"
    if before == "," and error.msg.startswith("Illegal trailing comma"):
        return "; remove the comma"
    if rest in ("//", "/*") or rest[:1] == "#":
        return "; JSON has no comments, use the key `notes`"
    if rest[:1] == "'":
        return "; use double quotes"
    return ""


def _positions(text: str) -> tuple[dict[Place, int], list[tuple[Place, int]]]:
    """Offsets of all places of a valid JSON text (of the key, for members of objects), and of repeated keys."""
    offsets: dict[Place, int] = {(): 0}
    repeated: list[tuple[Place, int]] = []
    stack: list[bool] = []  # per open container: whether it is an object
    place: list[str | int] = []  # the last step is the current key, or index, of the innermost container
    expect_key = False
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in "}]":
            stack.pop()
            place.pop()
        elif token == ",":
            expect_key = stack[-1]
            if not stack[-1]:
                place[-1] = int(place[-1]) + 1
        elif token == ":":
            expect_key = False
        elif expect_key:
            place[-1] = str(json.loads(token))
            if tuple(place) in offsets:
                repeated.append((tuple(place), match.start()))
            offsets[tuple(place)] = match.start()
        else:
            if not (stack and stack[-1]):
                offsets[tuple(place)] = match.start()
            if token in "{[":
                stack.append(token == "{")
                place.append("" if token == "{" else 0)
                expect_key = token == "{"
    return offsets, repeated
