"""The page of an explanation: it loads nothing, and what is chosen in one pane is there in every other."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

import effcc
from effcc.cli import app
from effcc.compression.report import ROWS, LayerReport
from effcc.errors import InputError
from effcc.explanation import Explanation
from effcc.page import page_text
from effcc.page.program import PANES


@dataclass
class Element:
    """An element: its tag, attributes and text, with those inside it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list[Element] = field(default_factory=list)

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """The elements inside, at any depth, with a tag and attributes; `cls` is one of the classes."""
        found = []
        for e in self.inside:
            wanted = {k: v for k, v in attributes.items() if k != "cls"}
            fits = wanted.items() <= e.attributes.items() and attributes.get("cls", "") in ("", *e.classes)
            if fits and tag in ("", e.tag):
                found.append(e)
            found += e.all(tag, **attributes)
        return found

    def whole_text(self) -> str:
        return self.text + "".join(e.whole_text() for e in self.inside)


class Reader(HTMLParser):
    """Reads a page into elements; an element that is closed by another's end fails."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {k: v or "" for k, v in attrs})
        self.open[-1].inside.append(element)
        if tag not in ("meta", "br"):
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].text += data


def read(text: str) -> Element:
    reader = Reader()
    reader.feed(text)
    reader.close()
    (page,) = reader.open
    return page


@pytest.fixture(scope="module")
def page(explanation: Explanation) -> Element:
    return read(page_text(explanation))


def kernels_of(element: Element) -> set[int]:
    return {int(k) for e in element.all() for k in e.attributes.get("data-k", "").split()}


def test_every_kernel_and_call_has_its_entry_in_every_pane(page: Element, explanation: Explanation) -> None:
    (program,) = explanation.programs
    assert len(program.externs) == 1 and len(program.kernels) >= 2
    everything = set(range(len(program.kernels) + len(program.externs)))
    for name in PANES:
        (pane,) = page.all("section", cls=name)
        assert kernels_of(pane) == everything, name
    (table,) = page.all("table")
    assert kernels_of(table) == everything
    (data,) = json.loads(page.all("script", id="data")[0].text)
    assert len(data["names"]) == len(everything)
    assert all(len(values) == len(everything) for values in data.values())


def test_ids_are_unique_and_every_link_has_its_place(page: Element) -> None:
    ids = [e.attributes["id"] for e in page.all() if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    links = [e.attributes["href"] for e in page.all("a")]
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)
    script = page.all("script")[-1].text
    for wanted in re.findall(r'getElementById\("(\w+)"\)', script):
        assert wanted in ids


def test_statements_are_called_alike_in_cascade_and_schedule(page: Element) -> None:
    (cascade,), (schedule,) = page.all("section", cls="cascade"), page.all("section", cls="schedule")
    entries = list(zip(cascade.all("section", cls="entry"), schedule.all("section", cls="entry"), strict=True))
    names = []
    for left, right in entries:
        one, other = (
            {s for e in side.all(cls="ln") for s in e.attributes.get("data-s", "").split()} for side in (left, right)
        )
        assert one == other
        names += one
    assert "linear" in names


def test_a_line_of_the_model_has_the_kernels_of_its_nodes(page: Element, explanation: Explanation) -> None:
    (model,) = page.all("section", cls="model")
    lines = {e.whole_text().strip(): kernels_of(Element("", {}, "", [e])) for e in model.all(cls="ln")}
    (product,) = (ks for text, ks in lines.items() if "torch.relu(part(x))" in text)
    assert {explanation.programs[0].kernels[k].name for k in product} == {"linear_relu"}
    (call,) = (ks for text, ks in lines.items() if "sort(-1)" in text)
    assert call == {len(explanation.programs[0].kernels)}


def test_equal_kernels_stand_once(page: Element, explanation: Explanation) -> None:
    (program,) = explanation.programs
    (product,) = (k for k in program.kernels if k.name == "linear_relu")
    assert product.launches == 2
    code = page.all("section", cls="code")[0].whole_text()
    for unit, text in program.code.items():
        assert code.count(f"namespace {unit} ") == text.count(f"namespace {unit} ")


def test_every_kernel_has_its_verdict(timed: Explanation) -> None:
    rows = read(page_text(timed)).all("tr")[1:]
    words = {int(r.attributes["data-k"]): r.all("td", cls="words")[0].text for r in rows}
    (program,) = timed.programs
    assert words[len(program.kernels)] == "run by PyTorch: sorting is not a cascade"
    assert all(words[n] == f"verdict {n}" for n in range(len(program.kernels)))


def test_what_is_no_kernels_is_told_as_the_text_tells_it(explanation: Explanation, page: Element) -> None:
    (told,) = page.all("pre", cls="about")
    assert "memory: arena" in told.text and "compile time: simplify" in told.text
    assert all(line in str(explanation) for line in told.text.splitlines())
    stored = LayerReport("part", "int8", 10, 40, 0.1, (1e-6,) * len(ROWS), (2e-6,) * len(ROWS), "")
    text = page_text(replace(explanation, layers=(stored,)))
    assert "Stored weights" in text and "10.00 %" in text


def test_the_page_loads_nothing(page: Element) -> None:
    policy = next(e.attributes["content"] for e in page.all("meta") if "http-equiv" in e.attributes)
    assert policy.startswith("default-src 'none';")
    for e in page.all():
        assert "src" not in e.attributes and e.tag not in ("link", "img", "iframe", "object", "base")
        assert not any(name.startswith("on") for name in e.attributes)
    style = page.all("style")[0].text
    assert "url(" not in style and "@import" not in style


def test_what_html_would_take_for_its_own_is_text(page: Element) -> None:
    assert all(e.text.isdigit() for e in page.all("b"))
    (model,) = page.all("section", cls="model")
    assert any('x.sort(-1).values  # </script> <b>&amp; "<!--' in e.whole_text() for e in model.all(cls="ln"))
    assert len(page.all("script")) == 2


def test_names_cannot_leave_the_script(explanation: Explanation) -> None:
    (program,) = explanation.programs
    hostile = replace(program, kernels=(replace(program.kernels[0], name="</script><b>"), *program.kernels[1:]))
    page = read(page_text(replace(explanation, programs=(hostile,))))
    assert json.loads(page.all("script", id="data")[0].text)[0]["names"][0] == "@</script><b>"
    assert all(e.text.isdigit() for e in page.all("b"))


def test_a_page_is_whole_or_absent(explanation: Explanation, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert explanation.html(path) == path
    assert path.read_text(encoding="utf-8") == page_text(explanation)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    with pytest.raises(InputError, match="expected a file that can be written"):
        explanation.html(tmp_path / "none" / "page.html")


def test_a_notebook_shows_it_in_a_frame(explanation: Explanation) -> None:
    (frame,) = read(explanation._repr_html_()).inside
    assert (frame.tag, frame.attributes["srcdoc"]) == ("iframe", page_text(explanation))


def test_the_command_writes_it(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    result = CliRunner().invoke(app, ["explain", str(model), "--no-measure", "--html", str(path)])
    assert result.exit_code == 0, result.output
    page = read(path.read_text())
    assert page.all("section", cls="program") and page.all("h1")[0].text == "effcc: sorted.pt2"
    assert result.stdout == ""


def test_a_program_without_graph_has_its_kernels_everywhere(explanation: Explanation) -> None:
    (program,) = explanation.programs
    bare = replace(explanation, programs=(replace(program, nodes=(), head=""),))
    page = read(page_text(bare))
    everything = set(range(len(program.kernels) + len(program.externs)))
    for name in PANES:
        assert kernels_of(page.all("section", cls=name)[0]) == everything
    assert page_text(effcc.explanation.Explanation((), {}))
