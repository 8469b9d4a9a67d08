"""How hypothesis runs: the same examples every time, and no deadline, for other work may share the machine."""

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
settings.load_profile("repeatable")
