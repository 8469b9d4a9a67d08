"""Communications that run at the same time on the same channels: max-min fair rates, by progressive filling.

A communication that is alone takes as long as the interconnect says and keeps channel ``c`` busy for a share ``u`` of
that time. At rate ``r`` (1: as if alone) it needs ``r u`` of the channel. All rates grow together until a channel is
full; who uses it stays where he is, and the others go on (Bertsekas and Gallager, "Data networks", 1992, 6.5.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Demand = tuple[tuple[int, float], ...]

#: A channel that is this full is full: sums of shares round.
_FULL = 1e-12


def fair_rates(demands: Mapping[int, Demand]) -> dict[int, float]:
    """The rate of every communication, at most 1.

    Args:
        demands: Per communication its channels and the share of each that it needs at rate 1, more than 0.
    """
    users: dict[int, dict[int, float]] = {}
    for job, demand in demands.items():
        for channel, share in demand:
            users.setdefault(channel, {})[job] = share
    rates: dict[int, float] = {}
    left = dict.fromkeys(users, 1.0)
    growing = dict.fromkeys(demands)
    level = 0.0
    while growing:
        wanted = {c: sum(share for job, share in own.items() if job in growing) for c, own in users.items()}
        step = min((left[c] / share for c, share in wanted.items() if share > 0), default=1.0)
        step = min(step, 1.0 - level)
        level += step
        for channel, share in wanted.items():
            left[channel] = max(0.0, left[channel] - step * share)
        if level >= 1.0 - _FULL:
            rates |= dict.fromkeys(growing, 1.0)
            break
        stopped = {job for c, own in users.items() if left[c] <= _FULL for job in own if job in growing}
        for job in stopped or set(growing):
            rates[job] = level
            growing.pop(job)
    return rates


class Channels:
    """The communications that run now, and how fast each of them goes."""

    def __init__(self, demands: Mapping[int, Demand]) -> None:
        """Args: what every communication, now or later, needs; one that is not named shares nothing."""
        self._demands = demands
        self._users: dict[int, dict[int, None]] = {}
        self._rates: dict[int, float] = {}
        self._touched: dict[int, None] = {}

    def add(self, job: int) -> None:
        """A communication starts."""
        for channel, _ in self._demands[job]:
            self._users.setdefault(channel, {})[job] = None
            self._touched[channel] = None

    def remove(self, job: int) -> None:
        """A communication has ended."""
        for channel, _ in self._demands[job]:
            del self._users[channel][job]
            self._touched[channel] = None
        self._rates.pop(job, None)

    def changed(self) -> dict[int, float]:
        """New rates of those that have another one since the last call, or are new."""
        if not self._touched:
            return {}
        near = self._near(self._touched)
        self._touched = {}
        if not near:
            return {}
        if len(near) == 1:
            rates = dict.fromkeys(near, 1.0)
        else:
            rates = fair_rates({job: self._demands[job] for job in sorted(near)})
        new = {job: rate for job, rate in rates.items() if self._rates.get(job) != rate}
        self._rates |= new
        return new

    def _near(self, channels: Iterable[int]) -> dict[int, None]:
        """All who share a channel with these channels' users, or with theirs, and so on."""
        found: dict[int, None] = {}
        seen = set(channels)
        queue = list(channels)
        while queue:
            for job in self._users.get(queue.pop(), ()):
                if job in found:
                    continue
                found[job] = None
                for channel, _ in self._demands[job]:
                    if channel not in seen:
                        seen.add(channel)
                        queue.append(channel)
        return found
