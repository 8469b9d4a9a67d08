"""ONNX Runtime sessions that share weights, and arrays of every element type in and out of them."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from mars_onnx.errors import RunError, UsageError
from mars_onnx.runtime.transport import Array

RUNTIME_ERRORS: tuple[type[Exception], ...] = (
    *(
        getattr(native, name)
        for name in (
            "EPFail",
            "EngineError",
            "Fail",
            "InvalidArgument",
            "InvalidGraph",
            "InvalidProtobuf",
            "ModelLoaded",
            "NoModel",
            "NoSuchFile",
            "NotImplemented",
            "RuntimeException",
        )
        if hasattr(native, name)
    ),
    RuntimeError,
    ValueError,
)
"""What ONNX Runtime raises when it does not like a model or an input, or fails while computing."""

_LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


_INLINE_BYTES = 1024
_PROVIDER = "ExecutionProvider"
_DEFAULT_PROVIDER = "CPU"


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """How sessions are built.

    The defaults are for many partitions in one process: no copy of a large weight is made. With ``prepack=True``
    weights are constants of the sessions, which then copy them, can fold them, and keep them in kernels' own forms.

    Attributes:
        threads: Threads inside an operator, per partition.
        provider: Execution provider of ONNX Runtime, without the ending ``ExecutionProvider``: ``CPU``, ``CUDA``, ...
            What it does not have runs on the CPU. ``None``: what ``plan.json`` says of the accelerator, else the CPU.
        providers: Accelerators by id that have another one, and which.
        optimization: Graph optimisation of ONNX Runtime.
        prepack: Whether sessions may keep weights, in a form of their own.
        arena: Whether every session keeps the memory it has once needed.
        native: Whether a partition may be lowered as a whole for this machine; see ``docs/execution.md``.
        blocked: Whether tensors may be kept in ONNX Runtime's blocked layout then.
    """

    threads: int = 1
    provider: str | None = None
    providers: tuple[tuple[str, str], ...] = ()
    optimization: Literal["none", "basic", "extended", "all"] = "extended"
    prepack: bool = False
    arena: bool = False
    native: bool = False
    blocked: bool = True

    def of(self, accelerator: str, planned: str | None = None) -> ExecutorOptions:
        """For one accelerator, for which the plan says ``planned``."""
        return replace(self, provider=dict(self.providers).get(accelerator, self.provider) or planned, providers=())

    @property
    def chosen_provider(self) -> str:
        """The provider, also where nothing is said."""
        return self.provider or _DEFAULT_PROVIDER

    def again(self) -> ExecutorOptions:
        """For models that ONNX Runtime has optimised before."""
        return replace(self, optimization="none")


FASTEST = ExecutorOptions(optimization="all", prepack=True, arena=True, native=True)
"""For one partition per process, run many times."""


SEGMENTS = replace(FASTEST, native=False)
"""The same without lowering: segments as they stand in the partition."""


class Weights:
    """Initializers as OrtValues over the arrays of the model, each made once, whichever sessions read it."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Array, ort.OrtValue]] = {}

    def get(self, name: str, tensor: ir.TensorProtocol) -> ort.OrtValue:
        """The initializer ``name``; the memory of ``tensor`` (maybe a mapped file) is used in place."""
        if name not in self._made:
            array = np.ascontiguousarray(tensor.numpy())
            self._made[name] = (array, ort_value(array, tensor.dtype))
        return self._made[name][1]


def with_providers(options: ExecutorOptions, texts: Sequence[str]) -> ExecutorOptions:
    """Options with the providers that ``NAME`` (for all) and ``ACCELERATOR=NAME`` say."""
    own: dict[str, str] = {}
    for text in texts:
        accelerator, separator, name = text.rpartition("=")
        if separator:
            own[accelerator] = name
        else:
            options = replace(options, provider=name)
    return replace(options, providers=tuple(own.items()))


def check_accelerators(options: ExecutorOptions, accelerators: Sequence[str]) -> None:
    """Raise UsageError if options name an accelerator that there is not."""
    for accelerator, name in options.providers:
        if accelerator not in accelerators:
            raise UsageError(
                f"provider {accelerator}={name}: there is no accelerator {accelerator}; {', '.join(accelerators)}"
            )


def check_provider(options: ExecutorOptions, accelerator: str) -> None:
    """Raise UsageError unless the installed onnxruntime has the provider of an accelerator."""
    try:
        _providers(options.chosen_provider)
    except UsageError as error:
        raise UsageError(f"{accelerator}: {error}; choose another one with --provider {accelerator}=NAME") from None


def make_session(
    model: onnx.ModelProto | str,
    large: Mapping[str, ir.TensorProtocol] | None = None,
    weights: Weights | None = None,
    options: ExecutorOptions | None = None,
    write_to: Path | None = None,
) -> ort.InferenceSession:
    """Build a session.

    Args:
        model: In memory, or a file.
        large: Initializers that the model announces without data.
        weights: Where to keep them; it must live as long as the session.
        options: How.
        write_to: Where to write the model as it has been optimised, with its weights in a file beside it.
    """
    options = options or ExecutorOptions()
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = _LEVELS[options.optimization]
    settings.enable_cpu_mem_arena = options.arena
    # What goes wrong is raised; printed as well, it would be said twice.
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Around Quantize/Dequantize pairs ONNX Runtime computes in integers, and even rounds weights that the model keeps
    # in floating point: other numbers than the operators say, and other ones again for a part of the graph.
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    if not options.prepack:
        settings.add_session_config_entry("session.disable_prepacking", "1")
    if write_to is not None:
        settings.optimized_model_filepath = str(write_to)
        outside = "session.optimized_model_external_initializers_"
        settings.add_session_config_entry(f"{outside}file_name", f"{write_to.name}.data")
        settings.add_session_config_entry(f"{outside}min_size_in_bytes", str(_INLINE_BYTES))
    if large:
        keep = weights if weights is not None else Weights()
        settings.add_external_initializers(list(large), [keep.get(name, tensor) for name, tensor in large.items()])
    source = model if isinstance(model, str) else model.SerializeToString()
    return ort.InferenceSession(source, settings, providers=_providers(options.chosen_provider))


def _providers(name: str) -> list[str]:
    """The provider, and the CPU for what it does not have.

    Raises:
        UsageError: This ONNX Runtime does not have it.
    """
    there = [provider.removesuffix(_PROVIDER) for provider in ort.get_available_providers()]
    if name not in there:
        raise UsageError(f"provider {name}: the installed onnxruntime has {', '.join(there)}")
    return [f"{one}{_PROVIDER}" for one in dict.fromkeys((name, "CPU"))]


def ort_value(array: Array, dtype: ir.DataType | None = None) -> ort.OrtValue:
    """An OrtValue over the memory of a contiguous array, which has to outlive it."""
    dtype = dtype or ir.DataType.from_numpy(array.dtype)
    if array.dtype.kind in "biufcOSU":
        return ort.OrtValue.ortvalue_from_numpy(array)
    raw = array.view(np.uint8 if array.dtype.itemsize == 1 else np.uint16)
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, int(dtype))


def bind_input(binding: Any, name: str, value: Array | ort.OrtValue) -> Array | None:
    """Bind one input; returns the array that has to live until the run is over, if it is a new one."""
    if isinstance(value, ort.OrtValue):
        binding.bind_ortvalue_input(name, value)
        return None
    if value.dtype.kind in "OSU":
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
        return value
    # np.ascontiguousarray would make a scalar one-dimensional.
    array = value if value.flags.c_contiguous else value.copy()
    element_type = int(ir.DataType.from_numpy(array.dtype))
    binding.bind_input(name, "cpu", 0, element_type, list(array.shape), array.ctypes.data)
    return array


def bind_output(binding: Any, name: str, dtype: ir.DataType | None, shape: tuple[int, ...] | None) -> Array | None:
    """Bind one output; returns the array it will be in, or ``None`` if ONNX Runtime has to make it."""
    if dtype is None or shape is None or dtype == ir.DataType.STRING or dtype.itemsize < 1:
        binding.bind_output(name)
        return None
    array = np.empty(shape, dtype.numpy())
    binding.bind_output(name, "cpu", 0, int(dtype), list(shape), array.ctypes.data)
    return array


def to_array(value: ort.OrtValue) -> Array | ort.OrtValue:
    """A tensor as an array (a copy); anything else as it is."""
    if not value.is_tensor():
        return value
    dtype = ir.DataType(value.element_type())
    if dtype == ir.DataType.STRING:
        return np.asarray(value.numpy())
    if dtype.itemsize < 1:
        return value
    size = value.tensor_size_in_bytes()
    raw = (ctypes.c_char * size).from_address(value.data_ptr()) if size else b""
    return np.frombuffer(raw, dtype.numpy()).reshape(value.shape()).copy()


def run_session(
    session: ort.InferenceSession, inputs: Mapping[str, Array | ort.OrtValue], outputs: list[str] | None = None
) -> dict[str, Array | ort.OrtValue]:
    """Run a whole session with arrays of any element type."""
    binding = session.io_binding()
    alive = [bind_input(binding, name, value) for name, value in inputs.items()]
    # A model may list a value twice among its outputs; the session gives it once.
    names = outputs if outputs is not None else list(dict.fromkeys(output.name for output in session.get_outputs()))
    for name in names:
        binding.bind_output(name)
    session.run_with_iobinding(binding)
    del alive
    return {name: to_array(value) for name, value in zip(names, binding.get_outputs(), strict=True)}


def as_array(value: Array | ort.OrtValue, name: str) -> Array:
    """The value if it is an array.

    Raises:
        RunError: It is a sequence, or of an element type that arrays do not have.
    """
    if isinstance(value, ort.OrtValue):
        raise RunError(f"{name} is a {value.data_type()}, which cannot pass between partitions")
    return value
