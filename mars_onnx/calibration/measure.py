"""Measuring kernels with ONNX Runtime's own profiler, and noticing when the machine was doing something else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from mars_onnx.calibration.profiles import Kernel, kernels_of
from mars_onnx.calibration.samples import steady
from mars_onnx.errors import InputError
from mars_onnx.runtime.sessions import RUNTIME_ERRORS
from mars_onnx.runtime.transport import Array

#: A run that was away from its core for more of its time than this is left out.
_MOST_AWAY = 0.03
_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Profiled:
    """A network that was run alternately with and without the profiler.

    Attributes:
        kernels: With the seconds of the undisturbed runs.
        plain_s: A run without the profiler, undisturbed.
        disturbed: Part of the runs that were left out.
    """

    kernels: tuple[Kernel, ...]
    plain_s: float
    disturbed: float

    @property
    def overhead_s(self) -> float:
        """What a kernel takes with the profiler more than without it, on average; negative: gaps between kernels."""
        together = sum(steady(kernel.seconds) for kernel in self.kernels)
        return (together - self.plain_s) / max(1, len(self.kernels))


def session_of(model: onnx.ModelProto | str, threads: int, profile: str | None = None) -> ort.InferenceSession:
    """A session as the executor builds them for speed: all optimisations, weights in the kernels' own form."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.add_session_config_entry("session.disable_quant_qdq", "1")
    if profile is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = profile
    source = model if isinstance(model, str) else model.SerializeToString()
    return ort.InferenceSession(source, settings, providers=["CPUExecutionProvider"])


def feeds_of(session: ort.InferenceSession, seed: int = 0) -> dict[str, Array]:
    """Random inputs of a session's shapes.

    Raises:
        InputError: An input has no static shape, or is of a type that random numbers do not make sense for.
    """
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for value in session.get_inputs():
        if not all(isinstance(extent, int) for extent in value.shape):
            raise InputError(f"input {value.name!r} has the shape {value.shape}; profiling needs a static one")
        if value.type == "tensor(float)":
            made[value.name] = rng.random(value.shape, dtype=np.float32) - np.float32(0.5)
        elif value.type in ("tensor(int64)", "tensor(int32)"):
            made[value.name] = np.zeros(value.shape, np.int64 if value.type == "tensor(int64)" else np.int32)
        else:
            raise InputError(f"input {value.name!r} is a {value.type}; profiling makes up float and int inputs only")
    return made


def profile(model: onnx.ModelProto | str, *, threads: int = 1, runs: int = 10) -> Profiled:
    """Run a model with and without the profiler, in turn.

    Args:
        model: In memory, or a file.
        threads: Of the session.
        runs: Of each kind, beside those to warm up.

    Raises:
        InputError: ONNX Runtime refuses the model, or its inputs cannot be made up.
    """
    with tempfile.TemporaryDirectory(prefix="mars-onnx-") as folder:
        try:
            plain = session_of(model, threads)
            watched = session_of(model, threads, str(Path(folder) / "profile"))
            runs_of = [_bound(session, feeds_of(session)) for session in (plain, watched)]
            bare, away_bare = [], []
            away: list[float] = []
            for number in range(_WARM_UP + runs):
                seconds, gone = _timed(plain, runs_of[0])
                _, gone_watched = _timed(watched, runs_of[1])
                if number >= _WARM_UP:
                    bare.append(seconds)
                    away_bare.append(gone)
                    away.append(gone_watched)
            file = Path(watched.end_profiling())
        except RUNTIME_ERRORS as error:
            raise InputError(f"ONNX Runtime cannot profile the model: {error}") from error
        kernels = kernels_of(json.loads(file.read_text(encoding="utf-8")))
    kept = _undisturbed(away, threads)
    kernels = [replace(k, seconds=tuple(k.seconds[_WARM_UP + i] for i in kept)) for k in kernels if _whole(k, runs)]
    plain_s = steady([bare[i] for i in _undisturbed(away_bare, threads)])
    return Profiled(tuple(kernels), plain_s, 1.0 - len(kept) / runs)


def _whole(kernel: Kernel, runs: int) -> bool:
    return len(kernel.seconds) == _WARM_UP + runs


@dataclass(frozen=True, slots=True)
class _Bound:
    """Inputs and outputs in memory that stays where it is; the arrays have to live as long as the binding."""

    binding: Any
    arrays: tuple[Array, ...]


def _bound(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> _Bound:
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_input(name, "cpu", 0, array.dtype, list(array.shape), array.ctypes.data)
    arrays = list(feeds.values())
    for value in session.get_outputs():
        if value.type == "tensor(float)" and all(isinstance(extent, int) for extent in value.shape):
            arrays.append(np.zeros(value.shape, np.float32))
            binding.bind_output(value.name, "cpu", 0, np.float32, list(value.shape), arrays[-1].ctypes.data)
        else:
            binding.bind_output(value.name)
    return _Bound(binding, tuple(arrays))


def _timed(session: ort.InferenceSession, bound: _Bound) -> tuple[float, float]:
    """Seconds of a run, and the part of them in which this thread did not have a core."""
    wall, busy = perf_counter(), thread_time()
    session.run_with_iobinding(bound.binding)
    wall, busy = perf_counter() - wall, thread_time() - busy
    return wall, max(0.0, 1.0 - busy / wall)


def _undisturbed(away: list[float], threads: int) -> list[int]:
    """Numbers of the runs that had the core to themselves; the best half if there are too few of them.

    With several threads the caller waits for others by design, and all runs count.
    """
    if threads > 1:
        return list(range(len(away)))
    kept = [number for number, part in enumerate(away) if part <= _MOST_AWAY]
    if 2 * len(kept) < len(away):
        kept = sorted(range(len(away)), key=away.__getitem__)[: (len(away) + 1) // 2]
    return sorted(kept)
