"""A watch over ranges of memory: whether all of their bytes are what they were when it began.

Two ways to know, by piece. Whole pages of private memory are tracked by the kernel where it does that
(`effcc.runtime.written`); what was perhaps written is compared by a digest of all its bytes. All else is compared by
the digest at every call: small pieces, the ends of large ones, memory that is shared, and systems without the record.
Either way every write counts, wherever it is and whoever did it. A difference is missed with a probability below 2^-62.

`EFFCC_WATCH=checksum` keeps to the digest; `EFFCC_WATCH=pages` raises where the kernel keeps no record.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from effcc.errors import ToolchainError, UnknownNameError
from effcc.runtime.watch_library import DIGEST_BYTES, Ranges
from effcc.runtime.written import CHUNK, Mark, WrittenPages, why_not, written_pages

METHODS = ("pages", "checksum")
_FEWEST_PAGES = 8  # that are tracked: a digest of fewer costs less than asking


def method() -> tuple[str, str]:
    """How large pieces are watched here, one of METHODS, and why so.

    Raises UnknownNameError if EFFCC_WATCH is neither, and ToolchainError if it asks for pages where that cannot be.
    """
    asked = os.environ.get("EFFCC_WATCH", "")
    if asked and asked not in METHODS:
        raise UnknownNameError("value of EFFCC_WATCH", asked, METHODS)
    if asked == "checksum":
        return asked, "as EFFCC_WATCH says"
    reason = why_not()
    if asked == "pages" and reason:
        raise ToolchainError(f"EFFCC_WATCH=pages: {reason}; use EFFCC_WATCH=checksum, or unset it")
    return ("checksum", reason) if reason else ("pages", "Linux tracks writes")


@dataclass(frozen=True)
class _State:
    """Who looks at which piece: `compared` by digest, each time; `tracked` by `pages`, since `mark`.

    settling: how many more times to find nothing changed before pages are tracked.
    """

    compared: Ranges
    expected: bytes
    settling: int
    pages: WrittenPages | None
    tracked: Ranges
    mark: Mark


class Watch:
    """Over the bytes of `ranges` (address, size) as they are now. Threads may ask at the same time.

    settling: how often digests are preferred first although pages could be tracked: what changed a moment ago may
        change again, and a digest costs less than noting writes that do come.
    threads: how many compute digests.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], settling: int = 0, threads: int = 1) -> None:
        self._threads = threads
        self._pieces = Ranges(_pieces(ranges))
        self._may_track = any(map(_is_paged, self._pieces.pairs)) and method()[0] == "pages"
        self._digests, self._state = self._look(settling if self._may_track else 0)

    def unchanged(self) -> bool:
        """Whether all bytes are what they were."""
        state = self._state
        if state.pages is None:
            if state.compared.digests(self._threads) != state.expected:
                return False
            if state.settling == 1:
                return self._look_again()
            if state.settling:
                self._state = replace(state, settling=state.settling - 1)
            return True
        digests, answer = state.pages.look(state.tracked, state.mark, state.compared, self._threads)
        if digests != state.expected:
            return False
        if answer.lost:
            return self._look_again()
        if answer.suspects:
            suspects = Ranges([state.tracked.pairs[i] for i in answer.suspects])
            if suspects.digests(self._threads) != _select(self._digests, suspects):
                return False
        if answer.mark is not state.mark:
            self._state = replace(state, mark=answer.mark)
        return True

    @property
    def tracks(self) -> bool:
        """Whether the kernel tracks any of the memory."""
        return len(self._state.tracked) > 0

    def untouched(self) -> bool:
        """Whether none of the tracked pages was written meanwhile, be it with what was there before."""
        state = self._state
        return state.pages is None or not state.pages.written_since(state.tracked, state.mark).suspects

    def _look(self, settling: int = 0) -> tuple[dict[tuple[int, int], bytes], _State]:
        """The digest of each piece, and how it is watched from before that was read."""
        pages = written_pages() if self._may_track and not settling else None
        tracked = Ranges(())
        if pages is not None:
            paged = Ranges([p for p in self._pieces.pairs if _is_paged(p)])
            tracked = Ranges([p for p, good in zip(paged.pairs, pages.track(paged), strict=True) if good])
        mark = pages.mark(tracked) if pages is not None else Mark(0, ())
        found = self._pieces.digests(self._threads)
        digests = {pair: found[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i, pair in enumerate(self._pieces.pairs)}
        others = set(self._pieces.pairs).difference(tracked.pairs)
        compared = Ranges([pair for pair in self._pieces.pairs if pair in others])
        return digests, _State(compared, _select(digests, compared), settling, pages, tracked, mark)

    def _look_again(self) -> bool:
        """Whether all bytes are what they were, by their digests; from now on they are watched anew."""
        digests, state = self._look()
        if digests != self._digests:
            return False
        self._state = state
        return True


def _select(digests: Mapping[tuple[int, int], bytes], ranges: Ranges) -> bytes:
    return b"".join(digests[pair] for pair in ranges.pairs)


def _pieces(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The bytes of the ranges, each once: whole pages, cut where chunks end, apart from what lies before and after."""
    found: list[tuple[int, int]] = []
    for begin, end in _joined(ranges):
        first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        cuts = [begin, end]
        if last - first >= _FEWEST_PAGES * mmap.PAGESIZE:
            cuts = [begin, first, *range((first // CHUNK + 1) * CHUNK, last, CHUNK), last, end]
        found += [(a, b - a) for a, b in pairwise(cuts) if b > a]
    return found


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Begin and end of what the ranges cover together, in order, without overlap."""
    found: list[tuple[int, int]] = []
    for begin, size in sorted(r for r in ranges if r[1]):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], begin + size))
        else:
            found.append((begin, begin + size))
    return found


def _is_paged(piece: tuple[int, int]) -> bool:
    """Whether the piece is whole pages, and more than its digest is worth."""
    return piece[0] % mmap.PAGESIZE == 0 and piece[1] % mmap.PAGESIZE == 0
