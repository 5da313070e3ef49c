"""The same model through effcc and its peers, each as a plain callable over the model's arguments.

    eager                   PyTorch as it is
    inductor                torch.compile's own backend
    inductor-max-autotune   the same with max-autotune and freezing
    effcc                   torch.compile(model, backend="effcc")
    effcc-avx2              the same with options={"target": "avx2"}, where the CPU has more
    effcc-max-autotune      the same with mode="max-autotune": how far the default's predictions are from the best found
    effcc-package           effcc.load of an exported package: no guards of torch.compile, as with the runtimes below
    onnxruntime, openvino   over an ONNX export; `pip install onnx onnxscript onnxruntime openvino`
    capture                 no compiler: what torch.compile costs before any backend starts

Each is at its best documented setting, with as many threads as torch has.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import effcc
from effcc.frontend import capture

Run = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Peer:
    """`build(model, args)` gives a callable whose first call may still compile; `needs` names what it imports."""

    name: str
    build: Callable[[nn.Module, tuple[Tensor, ...]], Run]
    needs: tuple[str, ...] = ()

    @property
    def missing(self) -> list[str]:
        return [package for package in self.needs if importlib.util.find_spec(package) is None]


def _torch_compile(model: nn.Module, **options: Any) -> Run:
    torch._dynamo.config.allow_rnn = options.get("backend") == "effcc"  # as each finds it when it is alone
    torch_compile: Any = torch.compile  # whose annotations lack isolate_recompiles
    return torch_compile(model, dynamic=False, isolate_recompiles=True, **options)


def _eager(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    return model


def _inductor(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    return _torch_compile(model)


def _inductor_max_autotune(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    compiled = _torch_compile(model, mode="max-autotune")
    import torch._inductor.config as inductor

    with inductor.patch(freezing=True), contextlib.redirect_stdout(None):
        compiled(*args)
    return compiled


def _effcc(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    return _torch_compile(model, backend="effcc")


def _effcc_avx2(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    return _torch_compile(model, backend="effcc", options={"target": "avx2"})


def _effcc_max_autotune(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    return _torch_compile(model, backend="effcc", mode="max-autotune")


def _effcc_package(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    path = Path(tempfile.mkdtemp(prefix="effcc-peers-")) / "model.effcc"
    effcc.export(model, args, path)
    return effcc.load(path, threads=torch.get_num_threads())


def _capture_only(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    return capture.compile_apart(model, lambda graph_module, inputs, signature: graph_module, dynamic=False)


def _export_onnx(model: nn.Module, args: tuple[Tensor, ...]) -> Path:
    path = Path(tempfile.mkdtemp(prefix="effcc-peers-")) / "model.onnx"
    with contextlib.redirect_stdout(None):
        torch.onnx.export(model, args, path, dynamo=True, external_data=True, verbose=False)
    return path


def _onnxruntime(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(_export_onnx(model, args)), options)
    names = [item.name for item in session.get_inputs()]
    return lambda *values: session.run(None, {n: v.numpy() for n, v in zip(names, values, strict=True)})


def _openvino(model: nn.Module, args: tuple[Tensor, ...]) -> Run:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(str(_export_onnx(model, args)), "CPU", settings).create_infer_request()
    return lambda *values: request.infer([value.numpy() for value in values])


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("eager", _eager),
        Peer("inductor", _inductor),
        Peer("inductor-max-autotune", _inductor_max_autotune),
        Peer("effcc", _effcc),
        Peer("effcc-avx2", _effcc_avx2),
        Peer("effcc-max-autotune", _effcc_max_autotune),
        Peer("effcc-package", _effcc_package),
        Peer("capture", _capture_only),
        Peer("onnxruntime", _onnxruntime, ("onnx", "onnxscript", "onnxruntime")),
        Peer("openvino", _openvino, ("onnx", "onnxscript", "openvino")),
    )
}
