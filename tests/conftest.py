"""How all tests run: hypothesis with the same examples every time and no deadline, and with interrupts that arrive."""

import signal

from hypothesis import settings

# Other work may share the machine.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")

# What a shell starts in the background ignores interrupts, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
