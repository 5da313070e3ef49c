"""Models with stored weights: eager, compiled, exported and saved, they all compute with the decoded weights."""

from __future__ import annotations

import copy
import io
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import effcc
from effcc.accuracy import check
from effcc.backend import programs_of
from effcc.compression.modules import EncodedLinear
from effcc.compression.quantize import quantize
from effcc.compression.sparsify import sparsify
from effcc.driver import compile_graph
from effcc.errors import EffccError, EncodingError, UnknownNameError
from effcc.frontend.aten import import_graph
from effcc.frontend.export import capture, from_exported
from effcc.ir.encodings.registry import DECLARATIONS
from effcc.passes.encodings import choose

Encode = Callable[[nn.Module], nn.Module]

ENCODINGS: dict[str, Encode] = {
    "int8": lambda m: quantize(m, "int8"),
    "block": lambda m: sparsify(m, "block(4,1)", density=0.25),
    "block then int8": lambda m: quantize(sparsify(m, "block(4,1)", density=0.25), "int8"),
    "int8 then block": lambda m: sparsify(quantize(m, "int8"), "block(4,1)", density=0.25),
    "int4 by groups": lambda m: quantize(m, 'int4(group=16,zero=true,scale="f16")'),
    "csr": lambda m: sparsify(m, "csr", density=0.25),
    "nm then int4": lambda m: quantize(sparsify(m, "nm(2,4)"), "int4(group=4)"),
    "block then int4": lambda m: quantize(sparsify(m, "block(4,1)", density=0.25), "int4(group=4)"),
}
every_encoding = pytest.mark.parametrize("encode", ENCODINGS.values(), ids=ENCODINGS)


def model(width: int = 24) -> nn.Module:
    """Two linear layers around an activation, the second without a bias."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 36), nn.GELU(), nn.Linear(36, 20, bias=False)).eval()


def with_nan(made: nn.Module) -> nn.Module:
    made[0].weight.data[1, 2] = float("nan")  # type: ignore[index, union-attr]
    return made


def decoded(encoded: nn.Module) -> nn.Module:
    """The model in float64 with its decoded weights."""
    plain = model(encoded[0].in_features)  # type: ignore[index, union-attr]
    for position in (0, 2):
        plain[position].weight = nn.Parameter(encoded[position].weight.detach())  # type: ignore[index, union-attr]
        if encoded[position].bias is not None:  # type: ignore[index, union-attr]
            plain[position].bias = nn.Parameter(encoded[position].bias.detach())  # type: ignore[index, union-attr]
    return plain.double()


def assert_right(encoded: nn.Module, x: Tensor, got: Tensor) -> None:
    """The documented bound: four times eager's largest error against float64 on the decoded weights, twice its mean."""
    with torch.no_grad():
        report = check(decoded(encoded)(x.double()), encoded(x), got)
    assert report.ok, str(report.worst)


@every_encoding
@pytest.mark.parametrize("rows", [1, 7, 33])
def test_compiled_models_compute_with_the_decoded_weights(encode: Encode, rows: int) -> None:
    encoded, x = encode(model()), torch.randn(rows, 24)
    torch._dynamo.reset()
    with torch.no_grad():
        got = torch.compile(encoded, backend="effcc")(x)
    assert_right(encoded, x, got)


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are read as they are stored, whatever a machine is predicted to do sooner."""
    monkeypatch.setattr(choose, "dense_seconds", lambda *_: math.inf)


@every_encoding
@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_of_other_dtypes_are_stored_and_read_so(encode: Encode, dtype: torch.dtype) -> None:
    encoded, x = encode(model().to(dtype)), torch.randn(9, 24, dtype=dtype)
    torch._dynamo.reset()
    compiled = torch.compile(encoded, backend="effcc")
    with torch.no_grad():
        got = compiled(x)
    assert got.dtype == dtype
    assert_right(encoded, x, got)
    (program,) = programs_of(compiled)
    assert [c.decision for c in program.state.encodings] == ["stored", "stored"]
    assert not effcc.stats(compiled).externs


@every_encoding
def test_rows_whose_number_changes_use_one_program(encode: Encode) -> None:
    encoded = encode(model())
    torch._dynamo.reset()
    compiled = torch.compile(encoded, backend="effcc", dynamic=True)
    for rows in (33, 2, 16):
        x = torch.randn(rows, 24)
        with torch.no_grad():
            assert_right(encoded, x, compiled(x))
    assert len(programs_of(compiled)) == 1


@every_encoding
def test_exported_models_come_back_and_compile(encode: Encode) -> None:
    encoded, x = encode(model()), torch.randn(7, 24)
    file = io.BytesIO()
    torch.export.save(torch.export.export(encoded, (x,)), file)
    file.seek(0)
    program = torch.export.load(file)
    torch.testing.assert_close(program.module()(x), encoded(x))
    captured = from_exported(program)
    imported = import_graph(captured.graph_module, captured.signature)
    (got,) = compile_graph(imported.graph)(*captured.state.values(), x)
    assert_right(encoded, x, got)


def test_a_file_with_stored_weights_is_read_in_a_fresh_process(tmp_path: Path) -> None:
    encoded, x = ENCODINGS["int8 then block"](model()), torch.randn(7, 24)
    torch.export.save(torch.export.export(encoded, (x,)), tmp_path / "model.pt2")
    torch.save((x, encoded(x)), tmp_path / "expected.pt")
    code = (
        "import torch; from effcc.frontend.export import load_exported; "
        "x, y = torch.load('expected.pt'); assert torch.equal(load_exported('model.pt2').module()(x), y)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("encode", [ENCODINGS[n] for n in ENCODINGS if "int4" not in n])
def test_no_dense_copy_of_a_stored_weight_is_made(encode: Encode) -> None:
    """Wide enough that packing whole vectors wastes nothing; beside the components there is at most one packed copy."""
    encoded = encode(nn.Sequential(nn.Linear(256, 256)))
    captured = capture(encoded, (torch.randn(64, 256),))
    compiled = compile_graph(import_graph(captured.graph_module, captured.signature).graph)
    compiled(*captured.state.values(), torch.randn(64, 256))
    components = sum(t.numel() * t.element_size() for t in captured.state.values())
    assert compiled.executable.prepared_bytes <= components
    assert [c.decision for c in compiled.state.encodings] == ["stored"]


@every_encoding
def test_gradients_pass(encode: Encode) -> None:
    encoded = encode(model())
    reference = copy.deepcopy(encoded)
    torch._dynamo.reset()
    compiled = torch.compile(encoded, backend="effcc")
    x, y = (torch.randn(7, 24).requires_grad_() for _ in range(2))
    y.data.copy_(x.data)
    compiled(x).square().sum().backward()
    reference(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for (name, got), expected in zip(encoded.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, msg=name)


VALUES = [d.samples[-1] for d in DECLARATIONS.values() if d.kind == "values"]


@pytest.mark.parametrize(
    "scheme",
    [
        *VALUES,
        "int8",
        'int8(per="tensor")',
        "block(4,1) . int8",
        "block(2,2) . int8",
        "block(2,2)",
        'block(2,2) . f16(per="channel")',
    ],
)
def test_the_gradient_of_a_component_is_that_of_decoding(scheme: str) -> None:
    """Decoding is linear in each floating component: a step changes it by the gradient times the step."""
    layer = nn.Linear(13, 8) if scheme in VALUES else nn.Linear(8, 8)
    level, _, values = scheme.rpartition(" . ")
    if scheme.startswith("block"):
        sparsify(layer, level or scheme, density=0.5)
    if values and "block" not in values:
        quantize(layer, values)
    shape, decode = list(layer.weight.shape), torch.ops.effcc.decode
    held = [getattr(layer, n).detach().clone() for n in layer.weight_components]  # type: ignore[attr-defined]
    weights = torch.randn(shape)
    floating = [i for i, c in enumerate(held) if c.is_floating_point()]
    assert floating or "e8" in layer.encoding or scheme.startswith(("fixed", "bfp"))  # exponents pass no gradient
    for i in floating:
        components = [c.float().requires_grad_() if n == i else c for n, c in enumerate(held)]
        (decode(layer.encoding, shape, components, torch.float32) * weights).sum().backward()  # type: ignore[attr-defined]
        start = components[i].detach()
        step = torch.randn_like(start)
        moved, still = ([*held[:i], c, *held[i + 1 :]] for c in (start + step, start))
        change = decode(layer.encoding, shape, moved, torch.float32) - decode(
            layer.encoding, shape, still, torch.float32
        )  # type: ignore[attr-defined]
        expected = (components[i].grad * step).sum()  # type: ignore[operator]
        torch.testing.assert_close((change * weights).sum(), expected, rtol=1e-4, atol=1e-4)


def test_a_stored_weight_follows_its_module_to_other_dtypes() -> None:
    layer = quantize(nn.Linear(32, 8), 'int4(group=16,scale="f16")')
    assert layer.weight.dtype == torch.float32 and layer.weight_scale.dtype == torch.float16
    half = copy.deepcopy(layer).to(torch.bfloat16)
    assert half.weight.dtype == half(torch.randn(2, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    torch.testing.assert_close(half.weight.float(), layer.weight, rtol=0.02, atol=0.02)
    assert layer.double().weight.dtype == torch.float64


def test_the_operator_keeps_its_promises_to_pytorch() -> None:
    layer = quantize(sparsify(nn.Linear(8, 8), density=0.5))
    components = [getattr(layer, n) for n in layer.weight_components]  # type: ignore[attr-defined]
    components[-1].requires_grad_()
    arguments = (layer.encoding, [8, 8], components, layer.weight_dtype)  # type: ignore[attr-defined]
    torch.library.opcheck(torch.ops.effcc.decode.default, arguments)


def test_both_orders_keep_the_same_blocks_and_say_the_same_encoding() -> None:
    one, other = (ENCODINGS[name](model()) for name in ("block then int8", "int8 then block"))
    assert one[0].encoding == other[0].encoding == 'block(4,1) . int8(per="channel")'  # type: ignore[index, union-attr]
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}
    zeros = [m[0].weight == 0 for m in (one, other)]  # type: ignore[index, union-attr]
    assert (zeros[0] == zeros[1]).float().mean() > 0.95


def test_quantized_weights_keep_their_bytes_when_blocks_are_left_out() -> None:
    layer = quantize(nn.Linear(24, 16))
    before = layer.weight
    after = sparsify(layer, density=0.25).weight
    assert torch.equal(after[after != 0], before[after != 0])
    assert int((after.reshape(4, 4, 24) != 0).any(1).sum()) == 4 * 6


@every_encoding
def test_state_dict_deepcopy_and_pickle_keep_the_components(encode: Encode) -> None:
    encoded, other, x = encode(model()), encode(model().apply(_shift)), torch.randn(3, 24)
    assert not torch.equal(encoded(x), other(x))
    other.load_state_dict(encoded.state_dict())
    assert torch.equal(encoded(x), other(x))
    assert torch.equal(encoded(x), copy.deepcopy(encoded)(x))
    assert torch.equal(encoded(x), pickle.loads(pickle.dumps(encoded))(x))
    assert isinstance(encoded[0], nn.Linear)  # type: ignore[index]


def _shift(module: nn.Module) -> None:
    for p in module.parameters(recurse=False):
        p.data += 0.1


def test_a_loaded_state_dict_is_seen_by_the_compiled_model() -> None:
    encoded, other, x = quantize(model()), quantize(model().apply(_shift)), torch.randn(3, 24)
    torch._dynamo.reset()
    compiled = torch.compile(encoded, backend="effcc")
    with torch.no_grad():
        compiled(x)
        encoded.load_state_dict(other.state_dict())
        assert_right(encoded, x, compiled(x))


def test_sparse_weights_can_be_trained_and_stay_sparse() -> None:
    layer = sparsify(nn.Linear(24, 16), density=0.25)
    assert "weight_values" in dict(layer.named_parameters())
    pattern = layer.weight != 0
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(torch.randn(4, 24)).square().sum().backward()
    optimizer.step()
    assert torch.equal(layer.weight != 0, pattern)


def test_embeddings_and_convolutions_are_stored_where_asked_for() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(40, 24), nn.Linear(24, 40, bias=False)
            self.head.weight = self.table.weight
            self.conv = nn.Conv2d(3, 8, 3, padding=1)

        def forward(self, ids: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
            return self.head(self.table(ids)), self.conv(image)

    torch.manual_seed(0)
    mixed = quantize(Mixed(), where=lambda _, m: not isinstance(m, Mixed))
    assert mixed.table.weight_values is mixed.head.weight_values
    ids, image = torch.randint(0, 40, (2, 5)), torch.randn(2, 3, 8, 8)
    torch._dynamo.reset()
    with torch.no_grad():
        got, expected = torch.compile(mixed, backend="effcc")(ids, image), mixed(ids, image)
    torch.testing.assert_close(got, expected)


def test_only_what_is_asked_for_is_stored() -> None:
    chosen = quantize(model(), where=lambda name, _: name == "2")
    assert type(chosen[0]) is nn.Linear  # type: ignore[index]
    assert type(chosen[2]) is EncodedLinear  # type: ignore[index]


@pytest.mark.parametrize(
    ("encode", "error", "message"),
    [
        (lambda m: quantize(m, "int9"), UnknownNameError, "did you mean 'int8'"),
        (lambda m: quantize(m, "block(4,1)"), EncodingError, "effcc.sparsify takes the others"),
        (lambda m: sparsify(m, "int8", density=0.5), EncodingError, "effcc.quantize takes the others"),
        (lambda m: sparsify(m, "block(4,1)", density=0.0), EncodingError, "0 < density <= 1"),
        (lambda m: sparsify(m, "csr"), EncodingError, "0 < density <= 1, got None"),
        (lambda m: sparsify(m, "nm(2,4)", density=0.5), EncodingError, "says itself how much is kept"),
        (lambda m: sparsify(sparsify(m, "nm(2,4)"), density=0.5), EncodingError, "stored as nm"),
        (
            lambda m: sparsify(m, "block(8,1)", density=0.5),
            EncodingError,
            r"0: block\(8,1\) needs rows in multiples of 8.*blocks of 6 x 1 fit",
        ),
        (lambda m: sparsify(with_nan(m), density=0.5), EncodingError, "0: .*holds infinities or NaN"),
        (lambda m: quantize(quantize(m)), EncodingError, "stored as int8"),
        (lambda m: sparsify(sparsify(m, density=0.5), density=0.5), EncodingError, "stored as block"),
        (lambda m: quantize(m, where=lambda n, _: n == "1"), EncodingError, "1 is a GELU"),
        (lambda m: quantize(nn.ReLU()), EncodingError, "no weight of ReLU was chosen"),
    ],
)
def test_what_does_not_fit_is_refused(encode: Encode, error: type[EffccError], message: str) -> None:
    with pytest.raises(error, match=message):
        encode(model())


def test_a_refusal_changes_nothing() -> None:
    untouched = nn.Sequential(nn.Linear(24, 36), nn.Linear(36, 18))
    with pytest.raises(EncodingError, match="1: "):
        sparsify(untouched, density=0.5)
    assert all(type(m) is nn.Linear for m in untouched)


def test_importing_effcc_needs_no_torch() -> None:
    code = "import effcc, sys; assert 'torch' not in sys.modules; assert 'quantize' in dir(effcc)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert effcc.quantize is quantize
    with pytest.raises(AttributeError, match="it has StoredCache, StoredState, adopt, calibrate, compile"):
        _ = effcc.quantise
