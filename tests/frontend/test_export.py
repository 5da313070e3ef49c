"""What torch.export hands us, in the same form; and what is refused."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from effcc.errors import CaptureError
from effcc.explanation import explain_file
from effcc.frontend import export
from effcc.sources import read_model


class Everything(nn.Module):
    """Parameters, a buffer that changes, a constant, a tree of inputs, several outputs, an input written in place."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor, scale: float, more: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor], int]:
        self.count.add_(1)
        more["written"].mul_(2)
        return self.out(x) * scale + torch.tensor([1.0, 2.0, 3.0, 4.0]), {"count": self.count + 0.0}, 7


def arguments() -> tuple[Tensor, float, dict[str, Tensor]]:
    return torch.ones(2, 4), 2.5, {"written": torch.ones(3)}


def test_a_program_computes_what_its_module_does() -> None:
    module = Everything()
    captured = export.capture(copy.deepcopy(module), arguments())  # a program shares its module's tensors
    args, expected_args = arguments(), arguments()
    got, expected = captured(*args), module(*expected_args)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(args[2], expected_args[2])


def test_placeholders_are_described() -> None:
    captured = export.capture(Everything(), arguments())
    signature = captured.signature
    assert {"out.weight", "out.bias", "count"} <= {signature.input_names[i] for i in signature.static_inputs}
    assert {signature.input_names[i] for i in signature.mutated_inputs} == {"count", "more_written"}
    assert list(captured.state) == list(range(len(captured.state)))
    assert all(captured.example_inputs[i].shape == tensor.shape for i, tensor in captured.state.items())


def test_sizes_stay_symbolic_where_the_export_says_so() -> None:
    rows = torch.export.Dim("rows", min=2, max=64)
    captured = export.capture(nn.Linear(4, 3), (torch.ones(5, 4),), dynamic_shapes=({0: rows},))
    assert isinstance(captured.example_inputs[-1].shape[0], torch.SymInt)
    assert captured(torch.ones(9, 4)).shape == (9, 3)


def test_a_file_gives_the_program_that_was_saved(tmp_path: Path) -> None:
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), torch.randn(2, 4)
    torch.export.save(torch.export.export(model, (x,)), tmp_path / "model.pt2")
    captured = export.from_exported(export.load_exported(tmp_path / "model.pt2"))
    torch.testing.assert_close(captured(x), model(x).detach())


def test_checks_without_results_are_dropped() -> None:
    captured = export.capture(nn.Identity(), (torch.ones(3),))
    casting = export.from_exported(torch.export.export(Cast(), (torch.ones(3),)))
    for graph_module in (captured.graph_module, casting.graph_module):
        assert "_assert_tensor_metadata" not in graph_module.code


class Cast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float64) + 1


def test_a_model_that_is_no_single_graph_is_refused_with_advice() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with pytest.raises(CaptureError, match=r"could not capture Branches as one graph[\s\S]*torch.compile"):
        export.capture(Branches(), (torch.ones(3),))


def test_arguments_of_another_structure_are_refused() -> None:
    captured = export.capture(nn.Linear(4, 3), (torch.ones(5, 4),))
    with pytest.raises(CaptureError, match="structure differs"):
        captured(torch.ones(5, 4), torch.ones(1))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such file"):
        export.load_exported(tmp_path / "none.pt2")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="got a folder"):
        export.load_exported(tmp_path)


def test_a_file_that_is_no_archive_is_refused_with_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "text.pt2").write_text("not a model")
    with pytest.raises(CaptureError, match="11 bytes that begin b'not a mo'"):
        export.load_exported(tmp_path / "text.pt2")


def test_a_foreign_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "foreign.pt2", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(CaptureError, match=r"a zip archive, but torch\.export\.load"):
        export.load_exported(tmp_path / "foreign.pt2")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(nn.Linear(4, 3), (torch.ones(5, 4),)), path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CaptureError):
        export.load_exported(path)


def test_what_torch_export_cannot_write_down_says_so() -> None:
    class Exclusive(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (x.shape[0] ^ 5)

    with pytest.raises(CaptureError, match="could not capture Exclusive"):
        export.capture(Exclusive(), (torch.ones(8, 4),), dynamic_shapes=({0: torch.export.Dim.AUTO},))


def test_sizes_count_as_those_of_the_example_where_schedules_are_chosen_and_explained(tmp_path: Path) -> None:
    path, rows = tmp_path / "model.pt2", torch.export.Dim("rows")
    model, args = nn.Linear(4, 3), (torch.ones(7, 4),)
    torch.export.save(torch.export.export(model, args, dynamic_shapes=({0: rows},)), path)
    assert list(read_model(path).hints.values()) == [7]
    assert " = 7\n" in str(explain_file(path, measure=False))
