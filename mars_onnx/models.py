"""Builds the shipped reference networks: ``python -m mars_onnx.models NAME ... -o DIR``.

The builders live in the folder ``models``, which a wheel and a checkout hold in different places. It is
loaded from where ``data_folder`` finds it, under a name of its own, so that no other package called
``models`` can come between.
"""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from mars_onnx.data import data_folder
from mars_onnx.errors import MarsError

_PACKAGE = "mars_onnx_reference_models"


def load_builder() -> ModuleType:
    """Return the module ``build`` of the shipped folder ``models``.

    Raises:
        InputError: The folder is neither in the wheel nor in a checkout.
    """
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(data_folder("models"))]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.build")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line of the builders; return its exit code."""
    try:
        builder = load_builder()
    except MarsError as error:
        print(f"mars-onnx-models: {error}", file=sys.stderr)
        return error.exit_code
    return int(builder.main(argv))


if __name__ == "__main__":
    sys.exit(main())
