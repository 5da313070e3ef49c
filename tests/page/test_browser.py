"""The page in a browser, where there is one: choosing in one pane chooses in the others, in light and in dark."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from effcc.explanation import Explanation

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on the path")

CHOOSE = """
const chosen = (selector) => [...document.querySelectorAll(selector)];
const click = (element) => element.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
const seen = {};
const line = chosen(".model .ln[data-k]").find((e) => e.textContent.includes("torch.relu(part"));
click(line);
for (const pane of chosen(".pane")) seen[pane.classList[1]] = pane.querySelectorAll(".chosen-k").length;
seen.told = document.querySelector(".chosen").textContent;
click(chosen(".cascade [data-s=relu]")[0]);
seen.statements = chosen(".schedule .chosen-s").map((e) => e.textContent.trim());
seen.nodes = chosen(".graph .chosen-s").length;
seen.lines = marks.size;
seen.back = getComputedStyle(document.body).backgroundColor;
seen.wider = document.documentElement.scrollWidth - innerWidth;
setTimeout(() => {
  seen.visible = chosen(".pane").map((pane) => {
    const [body, first] = [pane.querySelector(".body"), pane.querySelector(".chosen-k")];
    const [a, b] = [body.getBoundingClientRect(), first.getBoundingClientRect()];
    return b.top < a.bottom && b.bottom > a.top;
  });
  document.title = JSON.stringify(seen);
}, 300);
"""


CODE = """
choose(document.querySelector(".program"), [0], [], null);
const pre = document.querySelector(".code .chosen-k pre.text");
setTimeout(() => {
  pre.closest(".pane").scrollIntoView();
  const line = linesOf(pre, ["relu"]).pop();
  const body = pre.closest(".body");
  body.scrollTop += line.getBoundingClientRect().top - body.getBoundingClientRect().top - 50;
  const at = line.getBoundingClientRect();
  const where = {bubbles: true, clientX: body.getBoundingClientRect().left + 40, clientY: at.top + at.height / 2};
  pre.dispatchEvent(new MouseEvent("click", where));
  const found = [...document.querySelectorAll(".cascade .chosen-s")].map((e) => e.textContent.trim());
  document.title = JSON.stringify([line.toString(), found]);
}, 300);
"""


def test_choosing_a_line_of_code_chooses_its_statement(explanation: Explanation, tmp_path: Path) -> None:
    line, found = browse(explanation.html(tmp_path / "page.html"), CODE, 1600)
    assert explanation.programs[0].kernels[0].name == "linear_relu"
    assert "relu" in line and "linear" not in line
    # Of the cascade, and of the same before each step; the head of each names it as an output.
    statements = {statement.split("[")[0] for statement in found if not statement.startswith("kernel @linear_relu(")}
    assert statements == {"relu"}


def browse(page: Path, script: str, width: int, *, dark: bool = False) -> Any:
    """What a script that runs on a copy of the page leaves in its title."""
    copy = page.with_name(f"copy-{width}-{dark}.html")
    copy.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
        f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=5000", "--dump-dom",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []), copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize(("width", "dark"), [(1600, False), (600, True)])
def test_choosing_a_line_chooses_what_belongs_to_it(
    explanation: Explanation, tmp_path: Path, width: int, dark: bool
) -> None:
    seen = browse(explanation.html(tmp_path / "page.html"), CHOOSE, width, dark=dark)
    assert all(seen[pane] for pane in ("model", "graph", "cascade", "schedule", "code"))
    assert seen["told"].startswith("@linear_relu")
    assert seen["statements"] == ["do relu"]
    assert seen["nodes"] == 2  # of both layers
    assert seen["lines"] > 0
    assert seen["visible"] == [True] * 5
    assert seen["wider"] <= 0  # nothing sticks out of the window
    brightness = sum(map(int, re.findall(r"\d+", seen["back"])[:3])) / 3
    assert brightness < 60 if dark else brightness > 200


COLOUR = """
const seen = {};
for (const what of ["time", "share", "error", "bytes", ""]) {
  overlay.value = what;
  overlay.dispatchEvent(new Event("change"));
  const rows = [...document.querySelectorAll("tr[data-k]")].sort((a, b) => a.dataset.k - b.dataset.k);
  seen[what] = rows.map((row) => row.querySelector(".heat").style.getPropertyValue("--heat"));
  seen[what + " told"] = document.getElementById("legend").textContent;
}
document.title = JSON.stringify(seen);
"""


def test_the_choice_colours_kernels(timed: Explanation, tmp_path: Path) -> None:
    seen = browse(timed.html(tmp_path / "page.html"), COLOUR, 1600)
    (program,) = timed.programs
    *kernels, call = seen["share"]
    assert kernels == [f"{round(100 * (1 - 1 / (n + 1)))}%" for n in range(len(program.kernels))]
    assert call == ""  # PyTorch's call has no limit
    *kernels, call = seen["error"]
    assert (kernels[0], kernels[-1]) == ("0%", "100%") and call == ""
    longest = max(range(len(program.kernels)), key=lambda n: program.kernels[n].measured or 0)
    assert seen["time"][longest] == "100%"
    assert "100%" in seen["bytes"]
    assert set(seen[""]) == {""} and seen[" told"] == "" and "longest" in seen["time told"]


def test_without_times_nothing_is_coloured_by_them(explanation: Explanation, tmp_path: Path) -> None:
    seen = browse(explanation.html(tmp_path / "page.html"), COLOUR, 1600)
    assert set(seen["time"]) == {""} and seen["time told"] == "not measured"
