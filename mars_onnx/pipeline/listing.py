"""What ``--list-passes`` prints: the docstrings of the passes, which therefore are their documentation."""

import inspect
import textwrap

from mars_onnx.errors import UsageError
from mars_onnx.pipeline.options import MISSING, Option, options_of
from mars_onnx.pipeline.registry import ONNX_IR_PREFIX, RegisteredPass, Registry, default_registry


def list_passes(registry: Registry | None = None) -> str:
    """Return every pass with its one line, contract, example and options; those of onnx_ir by their first line."""
    entries = list(registry or default_registry())
    ours = [entry for entry in entries if not entry.name.startswith(ONNX_IR_PREFIX)]
    common = [entry for entry in entries if entry.name.startswith(ONNX_IR_PREFIX)]
    blocks = [_describe(entry, whole=True) for entry in ours]
    if common:
        blocks.append("Common passes of onnx_ir:\n\n" + "\n".join(_describe(entry, whole=False) for entry in common))
    return "\n\n".join(blocks)


def _describe(entry: RegisteredPass, whole: bool) -> str:
    head = entry.name if whole else f"  {entry.name}"
    try:
        pass_class = entry.load()
    except UsageError as error:
        return f"{head}\n    {error}"
    documentation = inspect.getdoc(pass_class) or "(no documentation)"
    options = [line for option in options_of(pass_class).values() if (line := _describe_option(option))]
    if not whole:
        brief = "; ".join(line.strip() for line in options)
        return f"{head}: {documentation.splitlines()[0]}" + (f" Options: {brief}" if brief else "")
    lines = [f"{head}  ({entry.distribution})", textwrap.indent(documentation, "    ")]
    if options:
        lines += ["", "    As text:", *options]
    return "\n".join(lines)


def _describe_option(option: Option) -> str | None:
    if option.type is None:
        return None
    kind = option.type.expected + (", repeated" if option.type.repeated else "")
    if option.default is MISSING:
        return f"      {option.name}=: {kind}; must be given"
    if option.default is None or option.default == ():
        return f"      {option.name}=: {kind}"
    return f"      {option.name}=: {kind}; by default {_default_text(option)}"


def _default_text(option: Option) -> str:
    assert option.type is not None
    if isinstance(option.default, tuple):
        return " ".join(option.type.print(item) for item in option.default)
    return option.type.print(option.default)
