"""Ways to change a model's weights, by name: each takes a tensor and writes it, or a module and changes one of its own.

Most leave no trace in the tensor's version counter.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack, to_dlpack

Write = Callable[[Tensor], Any]


def array(w: Tensor) -> Any:
    return w.detach().numpy()


def bits(w: Tensor) -> Tensor:
    return w.data.view({2: torch.int16, 4: torch.int32}[w.element_size()])


def other(w: Tensor, seed: int = 1) -> Tensor:
    return torch.randn(w.shape, generator=torch.Generator().manual_seed(seed)).to(w.dtype)


def raw(w: Tensor) -> Any:
    """All bytes of a contiguous tensor, as a buffer."""
    return (ctypes.c_char * w.nbytes).from_address(w.data_ptr())


def swap(w: Tensor, a: Any, b: Any) -> None:
    d = w.data
    d[a], d[b] = d[b].clone(), d[a].clone()


def permute_rows(w: Tensor) -> None:
    w.data.copy_(w.data[torch.randperm(len(w), generator=torch.Generator().manual_seed(3))].clone())


def prune(w: Tensor, share: float, seed: int) -> None:
    w.data.mul_(torch.rand(w.shape, generator=torch.Generator().manual_seed(seed)) >= share)


def in_thread(write: Callable[[], Any]) -> None:
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()


def from_file(w: Tensor, read: Callable[[int, Any], Any]) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(array(other(w)).tobytes())
        file.flush()
        file.seek(0)
        read(file.fileno(), memoryview(raw(w)).cast("B"))


def from_socket(w: Tensor) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(array(other(w)).tobytes()[:1024])
        ours.recv_into(memoryview(raw(w)).cast("B")[-1024:], 1024)


def by_memory_file(w: Tensor) -> None:
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(w.data_ptr() + w.nbytes // 2)
        memory.write(struct.pack("f", 3.0))


def by_other_process_call(w: Tensor) -> None:
    """process_vm_writev: how debuggers and sibling processes write."""

    class Piece(ctypes.Structure):
        _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))

    new = array(other(w)).tobytes()
    source, target = Piece(ctypes.cast(new, ctypes.c_void_p), len(new)), Piece(w.data_ptr(), len(new))
    write = ctypes.CDLL(None, use_errno=True).process_vm_writev
    done = write(os.getpid(), ctypes.byref(source), 1, ctypes.byref(target), 1, 0)
    assert done == len(new), os.strerror(ctypes.get_errno())


def drop_pages(w: Tensor) -> None:
    """The kernel takes pages away: they hold zeros from now on."""
    page = mmap.PAGESIZE
    first = -(-w.data_ptr() // page) * page
    assert not ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(4 * page), mmap.MADV_DONTNEED)


def map_over(w: Tensor) -> None:
    """Other memory comes to lie where the weight was."""
    page = mmap.PAGESIZE
    first = -(-w.data_ptr() // page) * page
    mapping = ctypes.CDLL(None).mmap
    mapping.restype = ctypes.c_void_p
    mapping.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    fixed = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10
    assert mapping(first, 4 * page, mmap.PROT_READ | mmap.PROT_WRITE, fixed, -1, 0) == first


def storage_copy(w: Tensor) -> None:
    w.untyped_storage().copy_(other(torch.empty(w.untyped_storage().nbytes() // 4)).untyped_storage())


def storage_resized(w: Tensor) -> None:
    storage = w.untyped_storage()
    size = storage.nbytes()
    storage.resize_(0)
    storage.resize_(size)
    w.data.copy_(other(w))


def shared(w: Tensor) -> None:
    w.data.share_memory_()
    w.data.mul_(1.5)


def foreach(name: str, *arguments: Any) -> Write:
    return lambda w: getattr(torch, f"_foreach_{name}")([w.data], *arguments)


WRITES: dict[str, Write] = {
    # PyTorch, past the version counter
    "data, all but the first column": lambda w: w.data[:, 1:].mul_(2),
    "data, the first column": lambda w: w.data[:, 0].add_(1),
    "data, the last column": lambda w: w.data[:, -1].add_(1),
    "data, odd rows zeroed": lambda w: w.data[1::2].zero_(),
    "data, even rows": lambda w: w.data[::2].mul_(-1),
    "data, the last row": lambda w: w.data[-1].fill_(0.5),
    "data, a block": lambda w: w.data[3:7, 5:11].add_(2),
    "data, first element": lambda w: w.data[0, 0].add_(1),
    "data, last element": lambda w: w.data[-1, -1].add_(1),
    "data, an element inside": lambda w: w.data[17, 11].add_(1),
    "data, scaled": lambda w: w.data.mul_(1.5),
    "data, shifted": lambda w: w.data.add_(0.25),
    "data, negated": lambda w: w.data.neg_(),
    "data, zeroed": lambda w: w.data.zero_(),
    "data, drawn": lambda w: w.data.normal_(),
    "data, drawn evenly": lambda w: w.data.uniform_(-1, 1),
    "data, copied": lambda w: w.data.copy_(other(w)),
    "data, clamped": lambda w: w.data.clamp_(-0.02, 0.02),
    "data, masked": lambda w: w.data.masked_fill_(w.data > 0.01, 0.0),
    "data, rounded": lambda w: w.data.mul_(8).round_().div_(8),
    "data, triangular": lambda w: w.data.triu_(1),
    "data, interpolated": lambda w: w.data.lerp_(other(w), 0.1),
    "data, low rank added": lambda w: w.data.addmm_(other(w)[:, :2], other(w, 2)[:2]),
    "data, index_fill_": lambda w: w.data.index_fill_(0, torch.tensor([5]), 1.0),
    "data, index_add_": lambda w: w.data.index_add_(0, torch.tensor([9]), other(w)[:1]),
    "data, index_copy_": lambda w: w.data.index_copy_(1, torch.tensor([1]), other(w)[:, :1]),
    "data, index_put_": lambda w: w.data.index_put_((torch.tensor([2]), torch.tensor([3])), torch.ones(1).to(w.dtype)),
    "data, put_": lambda w: w.data.put_(torch.tensor([777]), torch.tensor([4.0]).to(w.dtype)),
    "data, scatter_": lambda w: w.data.scatter_(1, torch.full((len(w), 1), 6), 2.0),
    "data, diagonal": lambda w: w.data.fill_diagonal_(3.0),
    "data, as strided": lambda w: w.data.as_strided((40,), (97,)).add_(1),
    "data, flattened": lambda w: w.data.view(-1)[1001:1003].fill_(9.0),
    "data, transposed": lambda w: w.data.t()[2, 4:9].add_(1),
    "data, an unbound row": lambda w: w.data.unbind()[7].mul_(3),
    "data, a chunk": lambda w: w.data.chunk(3)[1].mul_(2),
    "data, rows permuted": permute_rows,
    "data, rows rolled": lambda w: w.data.copy_(w.data.roll(1, 0).clone()),
    "data, columns flipped": lambda w: w.data.copy_(w.data.flip(1).clone()),
    "data, sorted": lambda w: w.data.copy_(w.data.sort(1).values),
    "data, two rows swapped": lambda w: swap(w, 4, 5),
    "data, two elements swapped": lambda w: swap(w, (3, 4), (30, 5)),
    "data, neighbours swapped": lambda w: swap(w, (3, 4), (3, 5)),
    "data, halves of a row swapped": lambda w: swap(w, (8, slice(0, 16)), (8, slice(16, 32))),
    "data, signs of a pair": lambda w: w.data[6, 2:4].neg_(),
    "data, signs of a column": lambda w: w.data[:, 9].neg_(),
    "data, + and - by as much": lambda w: w.data[11, 1:3].add_(torch.tensor([0.5, -0.5]).to(w.dtype)),
    "data, out=": lambda w: torch.mul(w.data, 2, out=w.data),
    "data, a ufunc of another's": lambda w: torch.add(other(w), 1, out=w.data),
    "data, 5 % pruned": lambda w: prune(w, 0.05, 0),
    "data, a half pruned": lambda w: prune(w, 0.5, 1),
    "data, smallest pruned": lambda w: w.data.mul_(w.data.abs() > w.data.abs().float().quantile(0.05)),
    "detach, added": lambda w: w.detach()[5:9].add_(1),
    "a view in another dtype": lambda w: bits(w)[3, 3].bitwise_xor_(1 << 14),
    "init.xavier_uniform_": lambda w: nn.init.xavier_uniform_(w),
    "init.orthogonal_": lambda w: nn.init.orthogonal_(w.data),
    "no_grad, added": lambda w: w.add_(0.1),
    "no_grad, subscript": lambda w: w.__setitem__((3, slice(None)), 0.3),
    "foreach mul": foreach("mul_", 1.25),
    "foreach add": foreach("add_", 0.125),
    "foreach zero": lambda w: torch._foreach_zero_([w.data[5]]),
    "foreach copy": lambda w: torch._foreach_copy_([w.data], [other(w)]),
    "foreach lerp": lambda w: torch._foreach_lerp_([w.data], [other(w)], 0.2),
    # storages
    "storage, a byte": lambda w: w.untyped_storage().__setitem__(w.nbytes // 2 + 3, 64),
    "storage, a typed element": lambda w: w.data.storage().__setitem__(999, 5.0),
    "storage, filled": lambda w: w.untyped_storage().fill_(0x3C),
    "storage, copied": storage_copy,
    "storage, resized": storage_resized,
    "storage, in its own tensor": lambda w: w.new_empty(0).data.set_(w.untyped_storage())[50:60].fill_(1.0),
    "moved to shared memory": shared,
    # NumPy and whoever else has the address
    "numpy, an element": lambda w: array(w).__setitem__((7, 7), 2.0),
    "numpy, rows": lambda w: array(w).__setitem__(slice(10, 12), 0.25),
    "numpy, put": lambda w: array(w).put([5, 5000], 1.5),
    "numpy, add.at": lambda w: np.add.at(array(w), ([1, 2], [3, 4]), 1.0),
    "numpy, out=": lambda w: np.multiply(array(w), 2, out=array(w)),
    "numpy, copyto": lambda w: np.copyto(array(w), array(other(w))),
    "numpy, sort": lambda w: array(w).sort(axis=0),
    "numpy, partition": lambda w: array(w)[9].partition(20),
    "numpy, shuffle": lambda w: np.random.default_rng(0).shuffle(array(w)),
    "numpy, fill": lambda w: array(w)[3].fill(0.75),
    "numpy, flat": lambda w: array(w).flat.__setitem__(4321, 0.9),
    "numpy, its bytes": lambda w: array(w)[6].view(np.uint8).__setitem__(slice(12, 14), 60),
    "numpy, of an address": lambda w: np.frombuffer(raw(w), np.float32).__setitem__(70, 8.0),
    "numpy, fill_diagonal": lambda w: np.fill_diagonal(array(w), 0.7),
    "dlpack to torch": lambda w: torch.from_dlpack(w.detach())[8:10].mul_(-2),
    "dlpack to numpy": lambda w: np.from_dlpack(w.detach())[:, 3].__iadd__(1.0),
    "dlpack capsule": lambda w: from_dlpack(to_dlpack(w.detach()))[2].fill_(0.2),
    "torch.from_numpy": lambda w: torch.from_numpy(array(w))[12].add_(1),
    "torch.as_tensor": lambda w: torch.as_tensor(array(w))[:, 13].add_(1),
    "torch.frombuffer": lambda w: torch.frombuffer(raw(w), dtype=w.dtype)[1234:1250].fill_(0.3),
    "torch.asarray": lambda w: torch.asarray(w.detach())[14].add_(1),
    "memoryview": lambda w: memoryview(array(w)).cast("B").__setitem__(slice(40, 44), struct.pack("f", 6.0)),
    "memmove": lambda w: ctypes.memmove(w.data_ptr() + 4096, array(other(w)).tobytes(), 512),
    "memset": lambda w: ctypes.memset(w.data_ptr() + w.nbytes - 8, 0x3C, 4),
    "memmove within": lambda w: ctypes.memmove(w.data_ptr(), w.data_ptr() + 4, w.nbytes - 4),
    "struct.pack_into": lambda w: struct.pack_into("f", raw(w), 400, 5.0),
    "io.readinto": lambda w: io.BytesIO(array(other(w)).tobytes()).readinto(memoryview(raw(w)).cast("B")),
    "a file's readinto": lambda w: from_file(w, lambda fd, to: io.FileIO(fd, closefd=False).readinto(to)),
    "os.readv": lambda w: from_file(w, lambda fd, to: os.readv(fd, [to])),
    "os.preadv of a part": lambda w: from_file(w, lambda fd, to: os.preadv(fd, [to[5000:5100]], 64)),
    "a socket": from_socket,
    "the file of memory": by_memory_file,
    "process_vm_writev": by_other_process_call,
    "another thread": lambda w: in_thread(lambda: w.data[15].mul_(2)),
    "pages dropped": drop_pages,
    "pages mapped over": map_over,
}  # fmt: skip


def first(model: nn.Module) -> Any:
    return model.get_submodule("0")


def assigned(set_weight: Callable[[Any, Tensor], Any]) -> Callable[[nn.Module], Any]:
    """A change of a model's first linear layer, given a new value for its weight."""
    return lambda model: set_weight(first(model), other(first(model).weight, 5))


def one_step(make: Callable[..., torch.optim.Optimizer]) -> Callable[[nn.Module], Any]:
    """A step of an optimizer on the eager model."""

    def change(model: nn.Module) -> None:
        optimizer = make(model.parameters())
        width = first(model).weight.shape[1]

        def loss() -> Tensor:
            optimizer.zero_grad()
            total: Tensor = model(torch.linspace(-1, 1, 4 * width).view(4, width)).square().sum()
            total.backward()
            return total

        with torch.enable_grad():
            optimizer.step(loss)  # type: ignore[arg-type]

    return change


def same_place(model: nn.Module) -> None:
    """Free a weight, and put another one in its stead that lies where it lay."""
    layer = first(model)
    new, address = other(layer.weight, 8), layer.weight.data_ptr()
    layer.weight.data = torch.zeros(1)
    tried = [torch.empty_like(new)]
    while tried[-1].data_ptr() != address and len(tried) < 64:
        tried.append(torch.empty_like(new))
    layer.weight.data = tried[-1].copy_(new)


def layer_replaced(model: nn.Module) -> None:
    wide, narrow = first(model).weight.shape
    model.__setattr__("0", nn.Linear(narrow, wide))


def in_training(model: nn.Module) -> None:
    model.train()(torch.randn(9, first(model).weight.shape[1]) + 3)
    model.eval()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "data =": assigned(lambda m, w: setattr(m.weight, "data", w)),
    "a new parameter": assigned(lambda m, w: setattr(m, "weight", nn.Parameter(w))),
    "register_parameter": assigned(lambda m, w: m.register_parameter("weight", nn.Parameter(w))),
    "set_": assigned(lambda m, w: m.weight.set_(w)),
    "swap_tensors": assigned(lambda m, w: torch.utils.swap_tensors(m.weight, nn.Parameter(w))),
    "load_state_dict": assigned(lambda m, w: m.load_state_dict({"weight": w, "bias": m.bias})),
    "load_state_dict, assigned": assigned(lambda m, w: m.load_state_dict({"weight": w, "bias": m.bias}, assign=True)),
    "another at the same place": same_place,
    "reset_parameters": lambda m: m[0].reset_parameters(),
    "another layer": layer_replaced,
    "vector_to_parameters": lambda m: nn.utils.vector_to_parameters(
        nn.utils.parameters_to_vector(m.parameters()) * 2, m.parameters()
    ),
    "apply": lambda m: m.apply(lambda part: part.weight.data.mul_(0.5) if isinstance(part, nn.Linear) else None),
    "double and back": lambda m: m.double().apply(nn.Module.train).eval().float()[0].weight.data.mul_(1.5),
    "to_empty and filled": lambda m: [t.fill_(1) for t in m.to_empty(device="cpu").state_dict().values()],
    "bias, last element": lambda m: m[0].bias.data[-1].add_(2),
    "running mean, one": lambda m: m[1].running_mean.data[20].add_(3),
    "running mean, all": lambda m: m[1].running_mean.data.add_(1),
    "running variance, numpy": lambda m: m[1].running_var.numpy().__setitem__(5, 9.0),
    "reset_running_stats": lambda m: m[1].reset_running_stats(),
    "a call in training": in_training,
    "scale, one": lambda m: m[1].weight.data[10].mul_(-2),
    "foreach, all": lambda m: torch._foreach_mul_([p.data for p in m.parameters()], 0.9),
    "foreach, interpolated": lambda m: torch._foreach_lerp_(list(m.parameters()), [*map(other, m.parameters())], 0.1),
    "sgd": one_step(lambda p: torch.optim.SGD(p, lr=0.1)),
    "sgd, momentum": one_step(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True)),
    "sgd, foreach": one_step(lambda p: torch.optim.SGD(p, lr=0.1, foreach=True)),
    "sgd, fused": one_step(lambda p: torch.optim.SGD(p, lr=0.1, fused=True)),
    "adam": one_step(lambda p: torch.optim.Adam(p, lr=0.05)),
    "adam, foreach": one_step(lambda p: torch.optim.Adam(p, lr=0.05, foreach=True)),
    "adam, fused": one_step(lambda p: torch.optim.Adam(p, lr=0.05, fused=True)),
    "adamw, fused": one_step(lambda p: torch.optim.AdamW(p, lr=0.05, fused=True)),
    "adagrad, fused": one_step(lambda p: torch.optim.Adagrad(p, lr=0.05, fused=True)),
    "rmsprop": one_step(lambda p: torch.optim.RMSprop(p, lr=0.05)),
    "lbfgs": one_step(lambda p: torch.optim.LBFGS(p, lr=0.05, max_iter=2)),
}  # fmt: skip
