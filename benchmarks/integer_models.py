"""Convolutional networks and BERT in static int8, effcc beside OpenVINO (NNCF) and ONNX Runtime (QDQ).

    python -m benchmarks.integer_models mobilenet_v2 resnet50 --threads 1 --seconds 20

Weights are random; every side calibrates on the same eight pictures (texts of 128 tokens for BERT), over the whole
range of values; NNCF is told which model is a transformer. Speed is the median of the rounds' ratios to effcc's
float32; `off` is how far the results of a ninth input are from eager's in float32, over their norm. With `--threads 1`
the clock is the processor's: others may use the machine. Reduced weights have 7 bits: with AVX2 the peers add up
products of 8 bits as fast, but in sums that saturate; effcc's never do. Sums in 16 bits are of eight products, exact
likewise. Needs onnx, onnxscript, onnxruntime, openvino and nncf for the peers; those that are missing are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import effcc
from benchmarks.models import bert, mobilenet_v2, resnet
from benchmarks.race import race
from benchmarks.table import show

SCHEMES = {
    "int8": "int8", "int8, reduced weights": "int8(reduce_range=true)",
    "int8, sums in 16 bits": "int8(accumulator=16)",
}  # fmt: skip
Run = Callable[..., Any]


def pictures(count: int) -> list[Tensor]:
    torch.manual_seed(7)
    return [torch.randn(1, 3, 224, 224) for _ in range(count)]


def texts(count: int) -> list[Tensor]:
    torch.manual_seed(7)
    return [torch.randint(0, 30_000, (1, 128)) for _ in range(count)]


@dataclass(frozen=True)
class Entry:
    """A model, its inputs, and whether it is a transformer."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], list[Tensor]] = pictures
    transformer: bool = False


MODELS = {
    "mobilenet_v2": Entry(lambda: mobilenet_v2(224)),
    "resnet50": Entry(lambda: resnet(224)),
    "bert": Entry(bert, texts, transformer=True),
    "bert_2_layers": Entry(lambda: bert(num_hidden_layers=2), texts, transformer=True),
}


def _effcc(model: nn.Module, target: str) -> Run:
    return torch.compile(copy.deepcopy(model), backend="effcc", options={"target": target}, dynamic=False)


def _onnx(model: nn.Module, example: Tensor, folder: Path) -> Path:
    path = folder / "model.onnx"
    with contextlib.redirect_stdout(None):
        torch.onnx.export(model, (example,), path, dynamo=True, external_data=False, verbose=False)
    return path


def _openvino(path: Path, data: Sequence[Tensor], transformer: bool) -> Run:
    import nncf
    import openvino

    settings = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads()), "PERFORMANCE_HINT": "LATENCY"}
    kind = nncf.ModelType.TRANSFORMER if transformer else None
    made = nncf.quantize(
        openvino.Core().read_model(str(path)), nncf.Dataset([x.numpy() for x in data]), model_type=kind
    )
    request = openvino.Core().compile_model(made, "CPU", settings).create_infer_request()
    return lambda x: torch.from_numpy(next(iter(request.infer([x.numpy()]).values())))


def _onnxruntime(path: Path, data: Sequence[Tensor], transformer: bool) -> Run:
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self.left = iter([{name: x.numpy()} for x in data])

        def get_next(self) -> Any:
            return next(self.left, None)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    name = onnxruntime.InferenceSession(str(path)).get_inputs()[0].name
    ready, made = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    quant_pre_process(str(path), str(ready))
    kinds = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(ready), str(made), Reader(name), quant_format=QuantFormat.QDQ, per_channel=True, **kinds)
    session = onnxruntime.InferenceSession(str(made), options)
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def sides(
    model: nn.Module, data: Sequence[Tensor], folder: Path, target: str, transformer: bool = False
) -> dict[str, Run]:
    """Each way to run the model; those whose packages are missing are left out."""
    found = {"effcc, float32": _effcc(model, target)}
    for name, scheme in SCHEMES.items():
        small = effcc.quantize(copy.deepcopy(model), scheme, activations="int8", data=list(data))
        found[f"effcc, {name}"] = _effcc(small, target)
    peers = {
        "OpenVINO, int8": (_openvino, ("openvino", "nncf")),
        "ONNX Runtime, int8": (_onnxruntime, ("onnxruntime",)),
    }
    there = {n: p for n, p in peers.items() if all(importlib.util.find_spec(m) for m in ("onnxscript", *p[1]))}
    path = _onnx(model, data[0], folder) if there else folder
    return found | {name: build(path, data, transformer) for name, (build, _) in there.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["mobilenet_v2", "resnet50", "bert"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--target", default="host", help="the machine effcc compiles for")
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for name in given.models:
        torch._dynamo.reset()
        entry = MODELS[name]
        *data, x = entry.inputs(9)
        model = entry.build()
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            runs = sides(model, data, Path(folder), given.target, entry.transformer)
            want = model(x)
            off = {side: float((run(x) - want).norm() / want.norm()) for side, run in runs.items()}
            clock = time.process_time if given.threads == 1 else None
            timings = race(runs, (x,), "effcc, float32", given.seconds, clock=clock)
        rows += [
            [name, side, f"{t.best * 1e3:.2f}", f"{t.median * 1e3:.2f}", f"{t.speed:.2f}x", f"{off[side] * 100:.2f} %"]
            for side, t in timings.items()
        ]
    show("Static int8", ["model", "side", "best ms", "median ms", "speed", "off"], rows)


if __name__ == "__main__":
    main()
