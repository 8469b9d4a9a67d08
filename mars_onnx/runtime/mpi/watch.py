"""The own watcher, as a process of a run sees it; see :mod:`mars_onnx.runtime.mpi.watcher`."""

from __future__ import annotations

import json
import mmap
import os
import secrets
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mars_onnx.runtime.mpi import watcher

if TYPE_CHECKING:
    from mpi4py import MPI

_NOWHERE = -1
_LOOPBACK = "127.0.0.1"
_DONE_S = 10.0
_TOLD_S = 3.0
_READY_S = 30.0
_KNOWN_S = 0.5
"""Longer than the watchers take to agree on who was first."""


class Watch:
    """Sees to it that no process of a run waits for one that is gone. All processes make one, together.

    When a process dies, hangs up or says that it has failed, every other one prints who and where, and ends.

    Args:
        comm: All processes of the run.
        name: How messages name this one.
    """

    def __init__(self, comm: MPI.Intracomm, name: str) -> None:
        machine = socket.gethostname()
        self._name = name
        self._closing = threading.Event()
        self._ready = threading.Event()
        self._over = threading.Event()
        everybody = comm.allgather((name, machine, _kernel(), os.getpid()))
        machines, kernels = [machine for _, machine, *_ in everybody], [kernel for *_, kernel, _ in everybody]
        self._comm = comm
        host = comm.Get_rank() == 0
        listening = _listen(_LOOPBACK if len(set(kernels)) == 1 else "") if host else None
        port = 0 if listening is None else listening.getsockname()[1]
        token, port = comm.bcast((secrets.token_hex(16), port), 0)
        with tempfile.TemporaryFile() as page:
            page.truncate(mmap.PAGESIZE)
            self._page = mmap.mmap(page.fileno(), mmap.PAGESIZE)
            self.at(_NOWHERE)
            self._socket, theirs = socket.socketpair()
            inherited = [theirs.fileno(), page.fileno(), -1 if listening is None else listening.fileno()]
            # From standard input, so that looking for this program by name does not find the watcher.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-", *map(str, inherited)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[descriptor for descriptor in inherited if descriptor >= 0],
                start_new_session=True,
            )
        theirs.close()
        if listening is not None:
            listening.close()
        source = self._process.stdin
        if source is not None:
            with source:
                source.write(Path(watcher.__file__).read_bytes())
        self._send(
            process=comm.Get_rank(),
            names=[name for name, *_ in everybody],
            machines=machines,
            kernels=kernels,
            pids=[pid for *_, pid in everybody],
            token=token,
            address=_LOOPBACK if kernels[0] == _kernel() else machines[0],
            port=port,
        )
        threading.Thread(target=self._listen, name="watch", daemon=True).start()

    def steps(self, names: Sequence[str]) -> None:
        """What the steps are called, for messages; from here on the watcher stands ready."""
        self._send(steps=list(names))
        self._ready.wait(_READY_S)

    def at(self, step: int) -> None:
        """The process begins this step."""
        struct.pack_into("q", self._page, 0, step)

    def idle(self) -> None:
        """The process is at no step."""
        self.at(_NOWHERE)

    def failed(self, text: str, code: int) -> None:
        """Say that this process cannot go on: the others end with this text. It has a few seconds to end by itself."""
        self._closing.set()
        self._send(failure=text, code=code)
        # Were it to end before the others know why, the launcher could be faster to end them.
        self._over.wait(_TOLD_S)

    def close(self) -> None:
        """The run is over. All processes call it, and none ends before all have."""
        self._closing.set()
        self._send(done=True)
        self._over.wait(_DONE_S)
        self._process.wait(_DONE_S)
        self._comm.Barrier()

    def _send(self, **message: object) -> None:
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            # The watcher is gone, which the thread that listens to it finds out.
            return

    def _listen(self) -> None:
        with self._socket.makefile("r", encoding="utf-8") as lines:
            for line in lines:
                message = json.loads(line)
                if "ready" in message:
                    self._ready.set()
                    continue
                if "end" in message and not self._closing.is_set():
                    leave(message["end"])
                self._over.set()
                return
        if not self._closing.is_set():
            # In one piece: the others say something at the same time.
            sys.stderr.write(f"error: {self._name}: its watcher has died\n")
            # The others find that out by themselves; were this one to end before, the launcher could be faster to end
            # them, and another one be seen to die first.
            time.sleep(_KNOWN_S)
            leave(1)


def _listen(address: str) -> socket.socket:
    return socket.create_server((address, 0), backlog=socket.SOMAXCONN)


def _kernel() -> str:
    """The same text for processes that can see each other by their numbers, and for no others."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def leave(code: int) -> NoReturn:
    """End at once, from any thread, whatever the others do; MPI would wait for all."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
