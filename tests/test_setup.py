"""What README.md, constraints.txt, pyproject.toml and .ci/run say about setting up agrees."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
README = (CHECKOUT / "README.md").read_text()
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==") for line in (CHECKOUT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)


def command(number: int) -> str:
    """README's command `number`: the line of shell after its mark."""
    found = re.search(rf"<!-- command {number} -->\n```sh\n(.*)\n```\n", README)
    assert found, f"README.md has no command {number}"
    return found.group(1)


def distribution(requirement: str) -> str:
    """The name in a requirement, as package indexes compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=;! ]", requirement)[0]).lower()


def test_command_1_ends_with_the_demo_and_command_2_with_the_tests() -> None:
    assert command(1).endswith("-e '.[demo]' && effcc demo")
    assert re.search(r"-e '\.\[dev\]' && pytest\b", command(2))
    assert all("-c constraints.txt" in command(number) for number in (1, 2))


def test_ci_runs_command_2_as_readme_has_it() -> None:
    script = (CHECKOUT / ".ci" / "run").read_text()
    extract = re.search(r"set_up_and_test=\$\((.*)\)\n", script)
    assert extract
    found = subprocess.run(["bash", "-c", extract.group(1)], cwd=CHECKOUT, text=True, capture_output=True, check=True)
    assert found.stdout.strip() == command(2)


APART = ("peers", "distributed")
"""Extras that are not installed for tests: what needs them is skipped without."""


def test_every_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    tested = [requirement for extra in extras if extra not in APART for requirement in extras[extra]]
    pinned = {distribution(name) for name in PINS}
    for requirement in [*PROJECT["dependencies"], *tested]:
        assert distribution(requirement) in pinned | {"effcc"}, requirement


def test_pins_are_of_public_releases() -> None:
    for name, version in PINS.items():
        assert re.fullmatch(r"\d+(\.\d+)*(\.?post\d+)?", version), f"{name}=={version}"


def test_dev_holds_every_other_extra_that_tests_need() -> None:
    extras = PROJECT["optional-dependencies"]
    (own,) = (requirement for requirement in extras["dev"] if requirement.startswith("effcc["))
    assert set(own.removeprefix("effcc[").removesuffix("]").split(",")) == set(extras) - {"dev", *APART}


@pytest.mark.parametrize("folder", ["passes", "codegen", "runtime", "fuzz"])
def test_the_rooms_beside_effcc_are_linked_into_it(folder: str) -> None:
    link = CHECKOUT / "effcc" / folder
    assert link.is_symlink()
    assert link.resolve() == CHECKOUT / folder
    assert f"`{folder}/`" in README
