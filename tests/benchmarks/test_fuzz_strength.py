"""The measure of the fuzzer: plants fit the sources, and each trial says what became of it, kept over interruptions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.fuzz_strength.__main__ import kept, main
from benchmarks.fuzz_strength.doors import EACH_MINUTE, Doors, chosen_doors
from benchmarks.fuzz_strength.plants import LISTS, Plant, StaleError, read_plants, sample
from benchmarks.fuzz_strength.trial import ROOT, attempt

# A campaign that looks at one number of the package, in a process as the real one's is.
_STUB = """
import json, os, sys
import effcc
assert effcc.__file__.startswith(os.getcwd()), effcc.__file__
assert os.environ["EFFCC_CACHE_DIR"].startswith(os.getcwd())
from effcc.ir.dims import ceil_div
wrong = [] if ceil_div(7, 2) == 4 else [{"step": "tile", "message": "ceil_div is wrong"}]
print(json.dumps({"graphs": 3, "found": 1.5 if wrong else None, "failures": [], "modules": {"failures": wrong}}))
"""


def _plant(new: str, old: str = "-(-a // b)") -> Plant:
    return Plant("one", "tiling", "rounding", "effcc/ir/dims.py", old, new)


def test_nearly_all_plants_fit_the_sources() -> None:
    assert len(read_plants()) >= 80 and len({p.room for p in read_plants()}) >= 20
    plants = [p for folder in LISTS.values() for p in read_plants(folder)]
    stale = [p.name for p in plants if (ROOT / p.file).read_text().count(p.old) != 1]
    assert len(stale) <= len(plants) // 10, stale  # as sources change some go stale, which trials tell; mend them then
    assert all(p.old != p.new and p.breaks for p in plants)


def test_a_trial_tells_found_from_missed_stale_and_what_cannot_be_imported(tmp_path: Path) -> None:
    fuzz = ("-c", _STUB)
    found = attempt(_plant("a // b"), 0, 0.1, fuzz)
    assert (found.outcome, found.seconds, found.door, found.step) == ("found", 1.5, "modules", "tile")
    assert attempt(_plant("-((-a) // b)"), 0, 0.1, fuzz).outcome == "missed"
    assert attempt(_plant("-(-a // b"), 0, 0.1, fuzz).outcome == "import"
    assert attempt(_plant("a // b", "not there"), 0, 0.1, fuzz).outcome == "stale"
    with pytest.raises(StaleError, match="0 times"):
        _plant("a", "not there").apply(ROOT)


def test_a_sample_is_always_the_same_and_takes_rooms_in_turn() -> None:
    plants = read_plants()
    some = sample(plants, 40)
    assert some == sample(plants, 40) and len({p.room for p in some}) == len({p.room for p in plants})


def test_results_are_kept_and_a_line_that_was_cut_off_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (plant,) = [p for p in read_plants() if p.name == "share-remainder"]
    line = {
        "plant": plant.name, "room": plant.room, "digest": plant.digest, "seed": 0, "minutes": 2.0, "outcome": "found",
        "seconds": 7.0, "door": "graphs", "step": "build", "message": "", "programs": 16,
    }  # fmt: skip
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(line) + '\n{"plant": "half a li')
    assert [r.plant for r in kept(file)] == [plant.name]
    main(["--resume", str(file), "--table", "--only", plant.name])
    assert "graphs build 1" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no plant and no room is called 'nothing'"):
        main(["--only", "nothing", "--table"])


def test_doors_that_are_near_a_plant_come_first_and_all_of_them_come() -> None:
    (rule,) = [p for p in read_plants() if p.name == "not-less-of-floats"]
    assert chosen_doors(rule, "all")[0] == "rules" and sorted(chosen_doors(rule, "all")) == sorted(EACH_MINUTE)
    assert chosen_doors(rule, "sizes,graphs") == ("sizes", "graphs")
    with pytest.raises(SystemExit, match="'walls'"):
        chosen_doors(rule, "walls")
    assert all(chosen_doors(p, "near") for folder in LISTS.values() for p in read_plants(folder))


@pytest.mark.slow  # a process that imports PyTorch, as every trial's is forked from it
def test_a_trial_door_by_door_tells_found_from_missed_and_what_cannot_be_imported() -> None:
    (lower,) = [p for p in read_plants() if p.name == "guard-le-as-lt"]
    with Doors() as doors:
        found = doors.attempt(lower, 0, 0.4, "sizes")
        assert (found.outcome, found.door) == ("found", "sizes")
        assert doors.attempt(_plant("-((-a) // b)"), 0, 0.1, "sizes").outcome == "missed"
        assert doors.attempt(_plant("-(-a // b"), 0, 0.1, "sizes").outcome in ("import", "crash")
        assert doors.attempt(_plant("a // b", "not there"), 0, 0.1, "sizes").outcome == "stale"
