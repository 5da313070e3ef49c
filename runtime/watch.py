"""A watch over ranges of memory: whether all of their bytes are what they were when it began.

Two ways to know, by piece. Pages of private memory are tracked by the kernel where it does that
(`effcc.runtime.written`); what was perhaps written is compared by a digest of all its bytes. All else is compared by
the digest at every call: small pieces that lie alone or in pages that other things are written to, memory that is
shared, and systems without the record.
Either way every write counts, wherever it is and whoever did it. A difference is missed with a probability below 2^-62.

`EFFCC_WATCH=checksum` keeps to the digest; `EFFCC_WATCH=pages` raises where the kernel keeps no record.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from effcc.errors import ToolchainError, UnknownNameError
from effcc.runtime.watch_library import DIGEST_BYTES, NO_RANGES, SERIAL_BYTES, Ranges, Turn
from effcc.runtime.written import CHUNK, FEWEST_PAGES, Mark, WrittenPages, joined, why_not, written_pages

METHODS = ("pages", "checksum")
_SERIAL_PAGES = 1 << 13  # that one thread asks for; more are worth several
_HITS = 3  # so often what lies beside a piece in its pages may be written before the piece is compared instead


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
    """Who looks at which piece: `compared` by digest, each time; `inside` by `pages`, which knows since `mark` of the
    pages `tracked`, one range for each piece.

    settling: how many more times to find nothing changed before pages are tracked.
    turn: what asks for all of it at once, where that is little.
    """

    compared: Ranges
    expected: bytes
    settling: int
    pages: WrittenPages | None
    inside: Ranges
    tracked: Ranges
    mark: Mark
    turn: Turn | None


class Watch:
    """Over the bytes of `ranges` (address, size) as they are now. Threads may ask at the same time.

    settling: how often digests are preferred first although pages could be tracked: what changed a moment ago may
        change again, and a digest costs less than noting writes that do come.
    threads: how many compute digests.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], settling: int = 0, threads: int = 1) -> None:
        self._threads = threads
        self._pieces = Ranges(_pieces(ranges))
        self._may_track = bool(_worth_tracking(self._pieces.pairs)) and method()[0] == "pages"
        self._hits: Counter[tuple[int, int]] = Counter()
        self._digests, self._state = self._look(settling if self._may_track else 0)

    def unchanged(self) -> bool:
        """Whether all bytes are what they were."""
        state = self._state
        if state.turn is None or state.settling:
            return self._unchanged(state, False)
        quiet = state.turn.unchanged()  # changes nothing that others know: no lock
        if quiet and (state.pages is None or state.pages.clearings == state.mark.clearings):
            return True
        return self._unchanged(state, quiet)

    def _unchanged(self, state: _State, quiet: bool) -> bool:
        """Whether all bytes are what they were; quiet: nothing was written that the record has not told to somebody."""
        if state.pages is None:
            if state.compared.digests(self._threads) != state.expected:
                return False
            if state.settling == 1:
                return self._look_again()
            if state.settling:
                self._state = replace(state, settling=state.settling - 1)
            return True
        answer = state.pages.settled(state.tracked, state.mark, state.turn) if quiet and state.turn else None
        if answer is None:
            digests, answer = state.pages.look(state.tracked, state.mark, state.compared, self._threads)
            if digests != state.expected:
                return False
        if answer.lost:
            return self._look_again()
        if answer.suspects:
            suspects = Ranges([state.inside.pairs[i] for i in answer.suspects])
            if suspects.digests(self._threads) != _select(self._digests, suspects):
                return False
        if answer.mark is not state.mark:
            self._state = self._calmer(replace(state, mark=answer.mark), answer.suspects)
        return True

    def _calmer(self, state: _State, suspects: Sequence[int]) -> _State:
        """The state after what lies beside some pieces was written: where that is so again and again, they are
        compared."""
        shared = [pair for i in suspects if not _is_paged(pair := state.inside.pairs[i])]
        self._hits.update(shared)
        busy = {pair for pair in shared if self._hits[pair] >= _HITS}
        if not busy:
            return state
        kept = [i for i, pair in enumerate(state.inside.pairs) if pair not in busy]
        mark = replace(state.mark, counts=tuple(state.mark.counts[i] for i in kept))
        inside, tracked = (Ranges([r.pairs[i] for i in kept]) for r in (state.inside, state.tracked))
        return self._watched(state.pages, inside, tracked, mark, self._digests)

    @property
    def tracks(self) -> bool:
        """Whether the kernel tracks any of the memory."""
        return len(self._state.tracked) > 0

    def untouched(self) -> bool:
        """Whether none of the pages that are wholly watched was written meanwhile, be it with what was there before."""
        state = self._state
        if state.pages is None:
            return True
        suspects = state.pages.written_since(state.tracked, state.mark).suspects
        return not any(_is_paged(state.inside.pairs[i]) for i in suspects)

    def _look(self, settling: int = 0) -> tuple[dict[tuple[int, int], bytes], _State]:
        """The digest of each piece, and how it is watched from before that was read."""
        pages = written_pages() if self._may_track and not settling else None
        inside, tracked, mark = NO_RANGES, NO_RANGES, Mark(0, ())
        if pages is not None:
            wanted = [p for p in _worth_tracking(self._pieces.pairs) if self._hits[p] < _HITS]
            good = pages.track(Ranges(list(map(_pages_of, wanted))))
            inside = Ranges([p for p, tracks in zip(wanted, good, strict=True) if tracks])
            tracked = Ranges(list(map(_pages_of, inside.pairs)))
            mark = pages.mark(tracked)
        found = self._pieces.digests(self._threads)
        digests = {pair: found[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)] for i, pair in enumerate(self._pieces.pairs)}
        return digests, self._watched(pages, inside, tracked, mark, digests, settling)

    def _watched(
        self,
        pages: WrittenPages | None,
        inside: Ranges,
        tracked: Ranges,
        mark: Mark,
        digests: Mapping[tuple[int, int], bytes],
        settling: int = 0,
    ) -> _State:
        """The state where `inside` is tracked, and all else compared."""
        others = set(self._pieces.pairs).difference(inside.pairs)
        compared = Ranges([pair for pair in self._pieces.pairs if pair in others])
        expected, turn = _select(digests, compared), None
        if self._pieces.pairs and compared.bytes <= SERIAL_BYTES and tracked.bytes <= _SERIAL_PAGES * mmap.PAGESIZE:
            turn = Turn(compared, expected) if pages is None else pages.turn(tracked, compared, expected)
        return _State(compared, expected, settling, pages, inside, tracked, mark, turn)

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
    for begin, end in joined(ranges):
        first, last = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        cuts = [begin, *range((begin // CHUNK + 1) * CHUNK, end, CHUNK), end]
        if last - first >= FEWEST_PAGES * mmap.PAGESIZE:
            cuts = [begin, first, *range((first // CHUNK + 1) * CHUNK, last, CHUNK), last, end]
        found += [(a, b - a) for a, b in pairwise(cuts) if b > a]
    return found


def _worth_tracking(pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The pieces of whole pages that are large, and those whose pages lie side by side with such: asking for both
    costs no more."""
    runs: list[list[tuple[int, int]]] = []
    end = 0
    for piece in pieces:  # in the order of addresses
        begin, size = _pages_of(piece)
        if not runs or begin > end:
            runs.append([])
        runs[-1].append(piece)
        end = max(end, begin + size)
    return [p for run in runs if any(map(_is_large, run)) for p in run]


def _is_large(piece: tuple[int, int]) -> bool:
    """Whether the piece is whole pages, so many that asking for them costs less than their digest."""
    return _is_paged(piece) and piece[1] >= FEWEST_PAGES * mmap.PAGESIZE


def _pages_of(piece: tuple[int, int]) -> tuple[int, int]:
    """The whole pages that hold a piece."""
    begin, end = piece[0] // mmap.PAGESIZE * mmap.PAGESIZE, -(-(piece[0] + piece[1]) // mmap.PAGESIZE) * mmap.PAGESIZE
    return begin, end - begin


def _is_paged(piece: tuple[int, int]) -> bool:
    """Whether the piece is whole pages."""
    return piece[0] % mmap.PAGESIZE == 0 and piece[1] % mmap.PAGESIZE == 0
