"""Where the shipped folders ``hwdb`` and ``models`` lie, in a wheel or in a checkout."""

from importlib.resources import files
from pathlib import Path

from mars_onnx.errors import InputError


def data_folder(name: str) -> Path:
    """Return the shipped folder ``name`` ("hwdb" or "models").

    Raises:
        InputError: Neither place holds it; the message names both.
    """
    package = Path(str(files("mars_onnx")))
    installed = package / "_data" / name
    checkout = package.parent / name
    for folder in (installed, checkout):
        if folder.is_dir():
            return folder
    raise InputError(f"the shipped folder {name!r} is neither at {installed} nor at {checkout}")
