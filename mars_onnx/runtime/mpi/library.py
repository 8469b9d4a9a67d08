"""Which MPI, if any: whether a launcher has started this process, and mpi4py with the interface of that launcher.

mpi4py's wheels carry one extension module per binary interface (MPICH's, which Intel MPI and others share, and Open
MPI's) and choose by the first MPI library they find, which is that of the ``mpich`` wheel where it is installed. A
process that Open MPI's mpiexec has started must not load that one: so the choice is made here, by the launcher.
"""

from __future__ import annotations

import os
from types import ModuleType

from mars_onnx.errors import UsageError

_OPEN_MPI = ("OMPI_COMM_WORLD_SIZE",)
_MPICH = ("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS")
_OTHER = ("PMIX_RANK",)
_CHOICE = "MPI4PY_MPIABI"
_INSTALL = "install it with: pip install 'mars-onnx[mpi]'"


def launched() -> bool:
    """Whether an MPI launcher (mpiexec, mpirun, srun with an MPI plug-in) has started this process."""
    return any(name in os.environ for name in (*_OPEN_MPI, *_MPICH, *_OTHER))


def load_mpi() -> ModuleType:
    """``mpi4py.MPI``, initialized, with the binary interface of the launcher that has started this process.

    Set the environment variable ``MPI4PY_MPIABI`` (``mpich`` or ``openmpi``) to choose by hand. A program that has
    imported mpi4py itself keeps what it has.

    Raises:
        UsageError: mpi4py is not installed, finds no MPI library, or finds one that the launcher does not know.
    """
    chosen = _CHOICE in os.environ
    if not chosen and any(name in os.environ for name in _OPEN_MPI):
        os.environ[_CHOICE] = "openmpi"
    try:
        import mpi4py

        # One thread communicates; a library that knows so takes no locks.
        mpi4py.rc.thread_level = "funneled"
        from mpi4py import MPI
    except ModuleNotFoundError:
        raise UsageError(f"running under mpiexec needs mpi4py; {_INSTALL}") from None
    except (ImportError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise UsageError(
            f"mpi4py finds no MPI library for this mpiexec ({text}); use the mpiexec of an installed MPI "
            f"(the one of the mpich wheel: 'pip install mpich'), or set {_CHOICE} to mpich or openmpi"
        ) from None
    finally:
        if not chosen:
            os.environ.pop(_CHOICE, None)
    started = _started_size()
    if started is not None and started != MPI.COMM_WORLD.Get_size():
        library = MPI.Get_library_version().partition("\n")[0].strip()
        raise UsageError(
            f"mpiexec has started {started} processes, but {library} sees {MPI.COMM_WORLD.Get_size()}: the library is "
            f"not the launcher's; use its mpiexec, or set {_CHOICE} to mpich or openmpi"
        )
    return MPI


def _started_size() -> int | None:
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE"):
        text = os.environ.get(name, "")
        if text.isdigit():
            return int(text)
    return None
