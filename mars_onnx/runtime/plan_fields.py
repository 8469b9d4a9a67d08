"""Typed reading of untrusted JSON, with the place of every complaint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mars_onnx.errors import InputError
from mars_onnx.geometry import Box

_MAX_TEXT = 4096
_MAX_INTEGER = 2**62


class PlanReader:
    """One JSON object; ``place`` says where it is, as ``plan.json: partitions[3]``."""

    def __init__(self, content: object, place: str) -> None:
        self.place = place
        if not isinstance(content, dict):
            raise InputError(f"{place}: should be an object, is {_kind(content)}")
        self._content: dict[str, Any] = content

    def present(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._content.get(key) is not None

    def text(self, key: str) -> str:
        """A string of ordinary length."""
        value = self._get(key)
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise self._wrong(key, "a string", value)
        return value

    def integer(self, key: str, most: int = _MAX_INTEGER) -> int:
        """An integer from 0 to ``most``."""
        return self._integer(key, self._get(key), most)

    def integers(self, key: str, most: int = _MAX_INTEGER) -> tuple[int, ...]:
        """A list of integers from 0 to ``most``."""
        return tuple(self._integer(f"{key}[{i}]", value, most) for i, value in enumerate(self._list(key)))

    def box(self, key: str, most: int = _MAX_INTEGER) -> Box:
        """A list of pairs."""
        pairs: list[tuple[int, int]] = []
        for number, value in enumerate(self._list(key)):
            place = f"{key}[{number}]"
            if not isinstance(value, list) or len(value) != 2:
                raise self._wrong(place, "a pair [start, stop]", value)
            pairs.append((self._integer(place, value[0], most), self._integer(place, value[1], most)))
        return tuple(pairs)

    def entry(self, key: str) -> PlanReader:
        """An object."""
        return PlanReader(self._get(key), f"{self.place}: {key}")

    def entries(self, key: str) -> list[PlanReader]:
        """A list of objects."""
        return [PlanReader(value, f"{self.place}: {key}[{i}]") for i, value in enumerate(self._list(key))]

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object of any content."""
        value = self._get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return value

    def _get(self, key: str) -> Any:
        if key not in self._content:
            raise InputError(f"{self.place}: {key} is missing")
        return self._content[key]

    def _list(self, key: str) -> list[Any]:
        value = self._get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list", value)
        return value

    def _integer(self, key: str, value: object, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self._wrong(key, f"an integer from 0 to {most}", value)
        return value

    def _wrong(self, key: str, wanted: str, value: object) -> InputError:
        return InputError(f"{self.place}: {key} should be {wanted}, is {_kind(value)}")


def _kind(value: object) -> str:
    if isinstance(value, dict | list):
        return {dict: "an object", list: "a list"}[type(value)]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
