"""Numbers for a person."""

from __future__ import annotations

_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def size_text(count: int) -> str:
    """A number of bytes."""
    for size, unit in _SIZES:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def time_text(seconds: float) -> str:
    """A time, to four digits."""
    for size, unit in _TIMES:
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns" if seconds > 0 else "0 s"


def percent_text(share: float) -> str:
    """A share, to a tenth of a percent; nothing that is not zero is shown as zero."""
    text = f"{share:.1%}"
    return f"{share:.1e}" if share and text in ("0.0%", "-0.0%") else text
