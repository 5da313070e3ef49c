"""How many threads run the next call of a program: as many as wanted, or fewer while other processes take cores.

A thread whose core is taken by another process holds up all others at the end of every kernel, so that two threads on
one and a half cores are slower than one. Calls that take much longer than they could are the sign: fewer threads are
then tried, and kept for some time if that is faster. Results are the same for any number of threads.
"""

from __future__ import annotations

import statistics
import threading
from collections import deque

_SLOW = 2.0
"""A call was held up that took so many times as long as the quickest, for its number of threads."""
_STEADY, _TRIALS = 4, 3
"""So many calls in a row are slow before another number of threads is tried, and so many calls are a trial."""
_GAIN = 0.9
"""Fewer threads are kept where a call takes at most this part of the time."""
_SHORTEST, _LONGEST = 32, 512
"""After so many calls the next number is tried; twice as many each time that it was no better."""
_PATIENCE = 2.0
"""... but after so many seconds, and the least number of calls, in any case: long calls would wait for minutes."""


class Pace:
    """Chooses the number of threads for calls that all do the same work, by how long the last ones took.

    >>> pace = Pace()
    >>> for seconds in (1.0, 9.0, 9.0, 9.0, 9.0):
    ...     pace.note(2, seconds)
    >>> pace.threads(2)
    1
    """

    def __init__(self) -> None:
        self._left_out = 0
        self._change = 0  # of the number of threads left out, while it is on trial
        self._before = 0.0  # seconds of a call with the number before the trial
        self._quickest = float("inf")
        self._times: deque[float] = deque(maxlen=_STEADY)
        self._rest = 0  # calls until a number is tried again ...
        self._until = 0.0  # ... and seconds, once there were the least number of calls
        self._pause = _SHORTEST
        self._noting = threading.Lock()

    def threads(self, wanted: int) -> int:
        """How many of the `wanted` threads the next call should have."""
        return max(1, wanted - self._left_out) if self._left_out else wanted

    def note(self, wanted: int, seconds: float) -> None:
        """Take note of how long a call took on `threads(wanted)` threads; of one among calls that end together."""
        if self._noting.acquire(blocking=False):
            try:
                self._note(wanted, seconds)
            finally:
                self._noting.release()

    def _note(self, wanted: int, seconds: float) -> None:
        if self._left_out == 0:
            self._quickest = min(1.001 * self._quickest, seconds)  # slowly forgotten: work may depend on data
            if seconds <= _SLOW * self._quickest and not self._change:
                self._times.clear()
                return
        self._times.append(seconds)
        if self._change:
            if len(self._times) == _TRIALS:
                self._judge()
        elif self._rest > 0:
            self._rest -= 1
            self._until -= seconds
            if self._until <= 0 and self._pause - self._rest >= _SHORTEST:
                self._rest = 0
        elif len(self._times) == _STEADY and wanted > 1:
            self._try(wanted)

    def _try(self, wanted: int) -> None:
        """Another number of threads for the next calls: fewer where calls are slow, else more again."""
        self._before = statistics.median(self._times)
        threads = self.threads(wanted)
        slow = _SLOW * self._quickest * wanted / threads
        self._change = 1 if threads > 1 and self._before > slow else -1 if self._left_out else 0
        self._left_out += self._change
        self._times.clear()

    def _judge(self) -> None:
        """Keep the number on trial, or take the one before."""
        now = statistics.median(self._times)
        better = now <= _GAIN * self._before if self._change > 0 else now < self._before
        if better:
            self._pause = _SHORTEST
        else:
            self._left_out -= self._change
            self._pause = min(2 * self._pause, _LONGEST)
        self._rest = self._pause if self._left_out or not better else 0
        self._until = _PATIENCE
        self._change = 0
        self._times.clear()
