"""Watches one process of a run from beside it; a program of its own that needs nothing but the standard library.

Every process of a run has one. It outlives its process, whatever ends that, and can end it, wherever it hangs. The
watcher of the host process is the hub: the others are connected to it. Who sees a process die says so to the hub; the
hub waits a moment, decides who was first, and tells all; every watcher prints why its process ends, and ends it.

On Linux all processes of a machine are watched through pidfds: where the launcher kills the rest as soon as one has
died, as MPICH's does, some watcher will have seen a moment at which only the first was dead.

:class:`mars_onnx.runtime.mpi.watch.Watch` starts it: the source comes on standard input, the configuration as a line
over the socket to the process.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

_BEAT_S = 1.0
_SILENCE_S = 3.5
"""Without a sign of life from another machine for so long, it counts as dead."""
_DECISION_S = 0.15
"""How long the hub collects what others have seen."""
_GRACE_S = 1.0
"""How long a process may take to end when it is told to; one that has failed itself and says so has _LAST_WORDS_S."""
_LAST_WORDS_S = 3.0
_CONNECT_S = 10.0
_MAX_LINE = 2**22
_DIED = "has died (killed, crashed, or out of memory)"
_VANISHED = "does not answer any more (its machine, its network, or its watcher is gone)"

Message = dict[str, Any]


class Line:
    """A socket that carries JSON, one object per line; an empty line is a sign of life."""

    def __init__(self, connection: socket.socket, trusted: bool = True) -> None:
        self.socket = connection
        self.trusted = trusted
        self.process = -1
        self.open = True
        self.finished = False
        self.heard_s = time.monotonic()
        self._received = b""

    def send(self, message: Message | None = None) -> None:
        """Send; a socket that is gone is found out by reading."""
        with contextlib.suppress(OSError):
            self.socket.sendall((b"" if message is None else json.dumps(message).encode()) + b"\n")

    def read(self) -> list[Message]:
        """What has come; ``open`` is false after the last."""
        try:
            data = self.socket.recv(2**16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.heard_s = time.monotonic()
        self._received += data
        *lines, self._received = self._received.split(b"\n")
        if not data or len(self._received) > (_MAX_LINE if self.trusted else 1024):
            self.open = False
        try:
            found = [json.loads(line) for line in lines if line]
        except ValueError:
            self.open = False
            return []
        return [message for message in found if isinstance(message, dict)]


class Watcher:
    """The whole program.

    Args:
        own: To the process.
        page: Where the process writes the number of its step.
        listening: If this is the hub, where the others connect.
    """

    def __init__(self, own: Line, page: mmap.mmap, listening: socket.socket | None) -> None:
        self.own = own
        self.page = page
        self.listening = listening
        configuration, *more = self._first_messages()
        self.process: int = configuration["process"]
        self.names: list[str] = configuration["names"]
        self.machines: list[str] = configuration["machines"]
        self.kernels: list[str] = configuration["kernels"]
        self.pids: list[int] = configuration["pids"]
        self.token: str = configuration["token"]
        self.hub: tuple[str, int] = (configuration["address"], configuration["port"])
        self.steps: list[str] = []
        self.lines: list[Line] = []
        self.pidfds: dict[int, int] = {}
        self.failed = False
        self.reports: list[tuple[list[int], str]] = []
        self.places: dict[int, str] = {}
        self.decide_s: float | None = None
        self.over = False
        self.more = more

    def run(self) -> None:
        """Until the run is over, well or not."""
        self._open_pidfds()
        for message in self.more:
            self._from_own(message)
        if self.over:
            return
        if self.listening is None:
            self._connect()
        self.own.send({"ready": True})
        beat_s = time.monotonic()
        while not self.over:
            now = time.monotonic()
            if now >= beat_s:
                beat_s = now + _BEAT_S
                self._beat(now)
            if self.decide_s is not None and now >= self.decide_s:
                self._decide()
                continue
            until = beat_s if self.decide_s is None else min(beat_s, self.decide_s)
            self._wait(max(0.0, until - now))

    def _first_messages(self) -> list[Message]:
        """The configuration, and what came with it."""
        while self.own.open:
            messages = self.own.read()
            if messages:
                return messages
        sys.exit(0)

    def _open_pidfds(self) -> None:
        here = self.kernels[self.process]
        for process, pid in enumerate(self.pids):
            if self.kernels[process] != here or not hasattr(os, "pidfd_open"):
                continue
            try:
                self.pidfds[os.pidfd_open(pid)] = process
            except ProcessLookupError:
                self._saw([process])
            except OSError:
                return

    def _connect(self) -> None:
        deadline = time.monotonic() + _CONNECT_S
        while True:
            try:
                line = Line(socket.create_connection(self.hub, timeout=_CONNECT_S))
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    self._say(f"warning: {self._name(self.process)} cannot reach the watcher of the host: {error}")
                    return
                # The others may be done already.
                if select.select([self.own.socket], [], [], 0.05)[0]:
                    self._read(self.own)
                if self.over or not self.own.open:
                    return
        line.socket.settimeout(None)
        line.process = 0
        line.send({"token": self.token, "process": self.process})
        self.lines.append(line)

    def _wait(self, timeout_s: float) -> None:
        poll = select.poll()
        readers: dict[int, Line] = {line.socket.fileno(): line for line in (self.own, *self.lines) if line.open}
        for descriptor in (*readers, *self.pidfds):
            poll.register(descriptor, select.POLLIN)
        if self.listening is not None:
            poll.register(self.listening.fileno(), select.POLLIN)
        ready = [descriptor for descriptor, _ in poll.poll(timeout_s * 1000 + 1)]
        # What a process has said before it died comes first.
        for descriptor in ready:
            if descriptor in readers:
                self._read(readers[descriptor])
        dead = [self.pidfds.pop(descriptor) for descriptor in ready if descriptor in self.pidfds]
        if dead:
            self._saw(dead)
        if self.listening is not None and self.listening.fileno() in ready:
            connection, _ = self.listening.accept()
            self.lines.append(Line(connection, trusted=False))

    def _read(self, line: Line) -> None:
        for message in line.read():
            if "bye" in message:
                line.finished = True
            elif line is self.own:
                self._from_own(message)
            elif self.listening is None:
                self._from_hub(message)
            elif not line.trusted:
                self._greet(line, message)
            else:
                self._report(message, line.process)
        if line.open or self.over:
            return
        if line is self.own:
            self._saw([self.process])
            return
        self.lines.remove(line)
        if line.trusted and not line.finished:
            self._saw([line.process], _VANISHED)

    def _greet(self, line: Line, message: Message) -> None:
        process = message.get("process")
        if message.get("token") == self.token and isinstance(process, int) and 0 < process < len(self.names):
            line.trusted, line.process = True, process
        else:
            line.open = False

    def _from_own(self, message: Message) -> None:
        if "steps" in message:
            self.steps = message["steps"]
        elif "failure" in message:
            self.failed = True
            self._report({"failure": message["failure"], "code": message["code"]}, self.process)
        elif "done" in message:
            for line in self.lines:
                line.send({"bye": True})
            self.own.send({"done": True})
            self.over = True

    def _from_hub(self, message: Message) -> None:
        if "verdict" in message:
            self._end(message["verdict"], message["code"])

    def _saw(self, dead: list[int], what: str = _DIED) -> None:
        """Processes have died, as far as this watcher can see."""
        places = {str(self.process): self._place()} if self.process in dead else {}
        self._report({"dead": dead, "what": what, "places": places}, self.process)

    def _report(self, message: Message, process: int) -> None:
        if self.listening is None:
            if self.lines:
                self.lines[0].send(message)
            elif "dead" in message:
                # Nobody to ask: what this watcher has seen has to do.
                self._record(message)
                self.decide_s = time.monotonic() + _DECISION_S
            else:
                self._end(message["failure"], message["code"])
            return
        if "failure" in message:
            self._tell(f"{self._name(process)} failed: {message['failure']}", message["code"], process)
            return
        self._record(message)
        if self.decide_s is None:
            self.decide_s = time.monotonic() + _DECISION_S

    def _record(self, message: Message) -> None:
        self.reports.append((message["dead"], message["what"]))
        self.places.update({int(process): place for process, place in message["places"].items()})

    def _decide(self) -> None:
        """Whoever somebody has seen dead when the others still lived was first."""
        if self.listening is None and self.lines:
            # Seen before the hub could be asked; now it can.
            for seen, how in self.reports:
                places = {str(process): place for process, place in self.places.items() if process in seen}
                self.lines[0].send({"dead": seen, "what": how, "places": places})
            self.reports.clear()
            self.decide_s = None
            return
        dead, what = min(self.reports, key=lambda report: (report[1] != _DIED, len(report[0])))
        named = [f"{self._name(process)} {what}{self.places.get(process, '')}" for process in sorted(dead)]
        self._tell("; ".join(named), 1)

    def _tell(self, verdict: str, code: int, last: int = -1) -> None:
        """Tell all; ``last`` is who ends by itself when it knows: the launcher may then kill the others."""
        for line in sorted(self.lines, key=lambda line: line.process == last):
            line.send({"verdict": verdict, "code": code})
        self._end(verdict, code)

    def _end(self, verdict: str, code: int) -> None:
        self.over = True
        if not self.failed:
            here = f"{self._name(self.process)}"
            own = verdict.startswith(here)
            self._say(f"error: {verdict}" if own else f"error: {here} ends{self._place()}: {verdict}")
        self.own.send({"end": code})
        limit_s = time.monotonic() + (_LAST_WORDS_S if self.failed else _GRACE_S)
        mine = next((descriptor for descriptor, process in self.pidfds.items() if process == self.process), None)
        while self.own.open and time.monotonic() < limit_s:
            if select.select([self.own.socket], [], [], 0.05)[0]:
                self.own.read()
        if mine is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(mine, signal.SIGKILL)
        elif self.own.open and not hasattr(os, "pidfd_open"):
            os.kill(self.pids[self.process], signal.SIGKILL)

    def _beat(self, now: float) -> None:
        here = self.kernels[self.process]
        for line in list(self.lines):
            if not line.trusted:
                if now - line.heard_s > _SILENCE_S:
                    self.lines.remove(line)
                continue
            line.send()
            if self.kernels[line.process] != here and now - line.heard_s > _SILENCE_S:
                self.lines.remove(line)
                self._saw([line.process], _VANISHED)

    def _place(self) -> str:
        (step,) = struct.unpack_from("q", self.page)
        if 0 <= step < len(self.steps):
            return f" at {self.steps[step]}"
        return " between two runs" if self.steps else " while it loads its partition"

    def _name(self, process: int) -> str:
        return f"{self.names[process]} on {self.machines[process]}"

    @staticmethod
    def _say(text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"{text}\n".encode())


def main() -> None:
    """Arguments: file descriptors of the socket, of the page, and of the listening socket or -1."""
    own, page, listening = map(int, sys.argv[1:4])
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    memory = mmap.mmap(page, mmap.PAGESIZE, prot=mmap.PROT_READ)
    Watcher(Line(socket.socket(fileno=own)), memory, None if listening < 0 else socket.socket(fileno=listening)).run()


if __name__ == "__main__":
    main()
