"""How strong is the fuzzer? Realistic bugs, planted one at a time in a copy of the package; does `effcc fuzz` see them?

python -m benchmarks.fuzz_strength --resume results.jsonl               # all, two minutes each, and without any
python -m benchmarks.fuzz_strength --sample 30 --minutes 10             # some, always the same
python -m benchmarks.fuzz_strength --only share-remainder --only NaN    # plants or rooms by name
python -m benchmarks.fuzz_strength --list late                          # the list planted after the fuzzer was tuned
python -m benchmarks.fuzz_strength --resume results.jsonl --table       # the table of what is there
python -m benchmarks.fuzz_strength --doors all --resume doors.jsonl     # door by door: as many cases as campaigns have
python -m benchmarks.fuzz_strength --doors rules,programs --only rules  # these doors alone
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.fuzz_strength.doors import EACH_MINUTE, Doors
from benchmarks.fuzz_strength.plants import LISTS, Plant, read_plants, sample
from benchmarks.fuzz_strength.trial import UNTOUCHED, Result, attempt
from benchmarks.table import show


def main(arguments: Sequence[str] | None = None) -> None:
    """Try what was asked for and is not there yet, a line of JSON each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="a plant or a room; may be repeated")
    parser.add_argument("--list", choices=LISTS, default="first", help="which list of plants (default first)")
    parser.add_argument("--sample", type=int, help="so many plants, of all rooms in turn")
    parser.add_argument("--minutes", type=float, default=2.0, help="for each (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="where the fuzzer's programs start")
    parser.add_argument("--resume", type=Path, help="keep results in this file, and go on from those that are there")
    parser.add_argument("--table", action="store_true", help="try nothing more")
    parser.add_argument(
        "--doors", default="", help=f"one by one, instead of campaigns: all, near, or of {', '.join(EACH_MINUTE)}"
    )
    parser.add_argument("--untouched", type=int, default=1, help="trials of the package as it is (default 1)")
    options = parser.parse_args(arguments)
    plants = chosen(read_plants(LISTS[options.list]), options.only)
    if options.sample is not None:
        plants = sample(plants, options.sample)
    done = {_key(r): r for r in kept(options.resume)}
    jobs: list[tuple[Plant | None, int]] = [(p, options.seed) for p in plants]
    if not options.only:
        jobs += [(None, options.seed + 1_000_000 * n) for n in range(options.untouched)]
    results = []
    with contextlib.ExitStack() as stack:
        doors = stack.enter_context(Doors()) if options.doors and not options.table else None
        for plant, seed in jobs:
            about = (plant.name, plant.digest) if plant is not None else (UNTOUCHED, "")
            found = done.get((*about, seed, options.minutes, options.doors))
            if found is None and not options.table:
                if doors is not None:
                    found = doors.attempt(plant, seed, options.minutes, options.doors)
                else:
                    found = attempt(plant, seed, options.minutes)
                said = f"{found.seconds:.0f} s {found.door} {found.step} {found.message[:90]}"
                print(f"{found.plant}: {found.outcome} {said}", flush=True)
                if options.resume is not None:
                    with open(options.resume, "a") as file:
                        file.write(json.dumps(dataclasses.asdict(found)) + "\n")
            results += [found] if found is not None else []
    print_table(results, options.minutes, plants)


def chosen(plants: Sequence[Plant], names: Sequence[str]) -> list[Plant]:
    """The plants of these names and rooms; all where nothing is said. Raises SystemExit for a name that is none."""
    known = {n for p in plants for n in (p.name, p.room)}
    unknown = [n for n in names if n not in known]
    if unknown:
        raise SystemExit(
            f"no plant and no room is called {unknown[0]!r}; rooms: {', '.join(sorted({p.room for p in plants}))}"
        )
    return [p for p in plants if not names or p.name in names or p.room in names]


def kept(file: Path | None) -> Iterator[Result]:
    """The results of earlier runs; a line that was cut off when one was killed is left out."""
    if file is None or not file.exists():
        return
    for line in file.read_text().splitlines():
        try:
            yield Result(**json.loads(line))
        except (ValueError, TypeError):
            continue


def _key(result: Result) -> tuple[str, str, int, float, str]:
    return result.plant, result.digest, result.seed, result.minutes, result.doors


def print_table(results: Sequence[Result], minutes: float, plants: Sequence[Plant]) -> None:
    """By room: how many plants there are, were tried and were found, and by which doors; then those that were not, and
    what cannot be counted."""
    tried = [r for r in results if r.plant != UNTOUCHED and r.outcome not in ("stale", "import")]
    rooms = sorted({p.room for p in plants})
    held = [p.room for p in plants]
    rows = [_row(room, held.count(room), [r for r in tried if r.room == room]) for room in rooms]
    rows.append(_row("all", len(held), tried))
    load = os.getloadavg()[0]
    title = f"planted bugs found within {minutes:g} minutes each; load {load:.1f} on {os.cpu_count()} cores"
    show(title, ("room", "plants", "tried", "found", "median s", "by"), rows)
    missed = [r.plant for r in tried if not r.is_found]
    print(f"not found: {', '.join(missed) or 'none'}")
    for outcome, what in (("stale", "no longer fit the sources"), ("import", "cannot even be imported")):
        names = [r.plant for r in results if r.outcome == outcome]
        if names:
            print(f"{what}: {', '.join(names)}")
    alarms = [r for r in results if r.plant == UNTOUCHED]
    false = [f"seed {r.seed}: {r.door} {r.step}: {r.message}" for r in alarms if r.outcome != "missed"]
    print(f"false alarms in {len(alarms)} trials of the untouched package: {'; '.join(false) or 'none'}")


def _row(room: str, plants: int, results: Sequence[Result]) -> tuple[str, ...]:
    found = sorted((r for r in results if r.is_found), key=lambda r: r.seconds)
    median = f"{found[len(found) // 2].seconds:.0f}" if found else ""
    doors = [f"{r.door} {r.step}".strip() for r in found]
    by = ", ".join(f"{d} {doors.count(d)}" for d in sorted(set(doors), key=lambda d: (-doors.count(d), d)))
    return room, str(plants), str(len(results)), str(len(found)), median, by


if __name__ == "__main__":
    main()
