"""mars_onnx: partition an ONNX model over a pool of accelerators.

>>> import mars_onnx
>>> compilation = mars_onnx.compile("model.onnx", "fpga_pool")  # doctest: +SKIP
>>> compilation.verify().raise_if_failed()  # doctest: +SKIP
>>> compilation.save("model.mars")  # doctest: +SKIP
>>> outputs = mars_onnx.load("model.mars").run(inputs)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from mars_onnx.version import __version__

if TYPE_CHECKING:
    from mars_onnx.compiler import Compilation, compile
    from mars_onnx.runtime.deployment import Deployment, load
    from mars_onnx.runtime.mpi.rank import Rank, load_rank

__all__ = ["Compilation", "Deployment", "Rank", "__version__", "compile", "load", "load_rank"]

_PLACES = {
    "Compilation": ("mars_onnx.compiler", "Compilation"),
    "compile": ("mars_onnx.compiler", "compile"),
    "Deployment": ("mars_onnx.runtime.deployment", "Deployment"),
    "load": ("mars_onnx.runtime.deployment", "load"),
    "Rank": ("mars_onnx.runtime.mpi.rank", "Rank"),
    "load_rank": ("mars_onnx.runtime.mpi.rank", "load_rank"),
}


def __getattr__(name: str) -> object:
    """Load what is asked for when it is first asked for: onnx and its runtime take a second to import."""
    if name in _PLACES:
        from importlib import import_module

        module, attribute = _PLACES[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
