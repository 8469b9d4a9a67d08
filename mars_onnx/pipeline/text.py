r"""Pipelines as text: ``canonicalize{dim="batch=1" keep-metadata},onnx-ir.common-subexpression-elimination``.

The grammar::

    pipeline = pass { "," pass }
    pass     = name [ "{" [ option { ( " " | "," ) option } ] "}" ]
    option   = name "=" value | name            (a bare name is "true")
    value    = characters other than space , { } " | '"' characters, \" and \\ escaped '"'

Spaces and newlines may stand between the parts. An option that holds several values is given several times, as on
the command line: ``dim=batch=1 dim=sequence=128`` (the first ``=`` ends the option's name); ``dim=`` alone holds none.
``str(pipeline)`` gives text that parses to an equal pipeline and leaves out what is as by default.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import onnx_ir as ir

from mars_onnx.errors import UsageError
from mars_onnx.pipeline.options import MISSING, Option, OptionType, options_of
from mars_onnx.pipeline.registry import Registry, default_registry, suggestion

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_BARE = re.compile(r'[^\s,{}"]*')
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_SEPARATOR = re.compile(r"[\s,]*")


@dataclass(frozen=True)
class Pipeline:
    """Passes in the order in which they run; prints as pipeline text."""

    passes: tuple[ir.passes.PassBase, ...]

    def __str__(self) -> str:
        return ",".join(pass_text(each) for each in self.passes)


def pass_text(pass_: ir.passes.PassBase, registry: Registry | None = None) -> str:
    """Return a pass with its options as pipeline text; fields that text cannot spell are left out."""
    name = (registry or default_registry()).name_of(type(pass_))
    words: list[str] = []
    for option in options_of(type(pass_)).values():
        value = getattr(pass_, option.field, option.default)
        if option.type is None or value is MISSING or value == option.default:
            continue
        words.extend(_option_words(option.name, option.type, value))
    return f"{name}{{{' '.join(words)}}}" if words else name


def _option_words(name: str, kind: OptionType, value: object) -> Iterator[str]:
    if value is None:
        yield f"{name}=none"
        return
    if not kind.repeated:
        yield f"{name}={_value_text(kind, value)}"
        return
    assert isinstance(value, tuple)
    if not value:
        yield f"{name}="
    for item in value:
        yield f"{name}={_value_text(kind, item)}"


def _value_text(kind: OptionType, value: object) -> str:
    text = kind.print(value)
    # Bare emptiness means an empty tuple and bare none means None, so the texts "" and "none" go in quotes.
    if text and _BARE.fullmatch(text) and not (kind.optional and text == "none"):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def parse_pipeline(text: str, given: Mapping[str, object] | None = None, registry: Registry | None = None) -> Pipeline:
    """Read pipeline text and build its passes.

    Args:
        text: See the module.
        given: Values for fields of these names, in every pass that has such a field and whose text does not set it:
            what text cannot spell (the pool), and options of the command line.
        registry: Where names are looked up.

    Raises:
        UsageError: The text is malformed, or names a pass or option that does not exist, or a value does not fit its
            option. The message points at the place.
    """
    reader = _Reader(text, given or {}, registry or default_registry())
    return Pipeline(tuple(reader.passes()))


@dataclass
class _Reader:
    """A cursor over the text; every method reads one part of the grammar."""

    text: str
    given: Mapping[str, object]
    registry: Registry
    position: int = 0

    def passes(self) -> Iterator[ir.passes.PassBase]:
        yield self.one_pass()
        while self.at(","):
            yield self.one_pass()
        if self.position < len(self.text):
            self.fail("expected ',' and another pass, or the end", self.position)

    def one_pass(self) -> ir.passes.PassBase:
        start = self.skip()
        name = self.take(_NAME)
        if name is None:
            self.fail("expected the name of a pass", start)
        try:
            pass_class = self.registry.find(name).load()
        except UsageError as error:
            self.fail(str(error), start)
        options = options_of(pass_class)
        values: dict[str, object] = {}
        if self.at("{"):
            self.read_options(name, options, values)
        for option in options.values():
            if option.field in self.given:
                values.setdefault(option.field, self.given[option.field])
            if option.default is MISSING and option.field not in values:
                self.fail(f"the pass {name!r} needs its option {option.name!r}", start)
        try:
            return pass_class(**values)
        except UsageError as error:
            self.fail(str(error), start)

    def read_options(self, pass_name: str, options: Mapping[str, Option], values: dict[str, object]) -> None:
        opening = self.position - 1
        self.take(_SEPARATOR)
        while not self.at("}"):
            start = self.skip()
            if start == len(self.text):
                self.fail("this '{' is never closed", opening)
            name = self.take(_NAME)
            if name is None:
                self.fail("expected an option or '}'", start)
            known = {key: option for key, option in options.items() if option.type is not None}
            if name not in known:
                tail = suggestion(name, known) or "; it has none"
                self.fail(f"the pass {pass_name!r} has no option {name!r}{tail}", start)
            self.read_value(known[name], values, start)
            rest = self.text[self.position : self.position + 1]
            if not self.take(_SEPARATOR) and rest not in ("}", ""):
                self.fail("expected a space, ',' or '}' after the option", self.position)

    def read_value(self, option: Option, values: dict[str, object], start: int) -> None:
        kind = option.type
        assert kind is not None
        quoted = False
        value_at = start
        if self.text.startswith("=", self.position):
            self.position += 1
            value_at = self.position
            quoted = self.text.startswith('"', self.position)
            word = self.quoted() if quoted else self.take(_BARE) or ""
        elif kind.expected == "true or false":
            word = "true"
        else:
            self.fail(f"the option {option.name!r} needs a value: {option.name}=..., {kind.expected}", start)
        if option.field in values and not kind.repeated:
            self.fail(f"the option {option.name!r} is given twice", start)
        if kind.repeated and not quoted and not word:
            values.setdefault(option.field, ())
            return
        if kind.optional and not quoted and word == "none":
            values[option.field] = None
            return
        try:
            value = kind.parse(word)
        except (ValueError, KeyError):
            self.fail(f"the option {option.name!r} is {kind.expected}, not {word!r}", value_at)
        before = values.get(option.field, ())
        values[option.field] = (*before, value) if kind.repeated and isinstance(before, tuple) else value

    def quoted(self) -> str:
        start = self.position
        match = _QUOTED.match(self.text, start)
        if match is None:
            self.fail('this quote is never closed (write \\" and \\\\ for a quote and a backslash in it)', start)
        self.position = match.end()
        return re.sub(r"\\(.)", r"\1", match[1])

    def skip(self) -> int:
        self.take(_SPACE)
        return self.position

    def at(self, character: str) -> bool:
        """Whether ``character`` comes next, which is then passed."""
        self.skip()
        if not self.text.startswith(character, self.position):
            return False
        self.position += 1
        return True

    def take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.position)
        if match is None:
            return None
        self.position = match.end()
        return match[0]

    def fail(self, message: str, position: int) -> NoReturn:
        """Raise with the line of the text and a caret under the place."""
        first = self.text.rfind("\n", 0, position) + 1
        last = self.text.find("\n", position)
        line = self.text[first : last if last >= 0 else None].replace("\t", " ")
        raise UsageError(f"pipeline: {message}\n  {line}\n  {' ' * (position - first)}^") from None
