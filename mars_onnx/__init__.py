"""mars_onnx: partition an ONNX model over a pool of accelerators.

>>> import mars_onnx
>>> compilation = mars_onnx.compile("model.onnx", "fpga_pool")  # doctest: +SKIP
>>> compilation.verify().raise_if_failed()  # doctest: +SKIP
>>> compilation.save("model.mars")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from mars_onnx.version import __version__

if TYPE_CHECKING:
    from mars_onnx.compiler import Compilation, compile

__all__ = ["Compilation", "__version__", "compile"]


def __getattr__(name: str) -> object:
    """Load the compiler when it is first asked for: onnx and its runtime take a second to import."""
    if name in ("Compilation", "compile"):
        from mars_onnx import compiler

        return getattr(compiler, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
