"""CUDA pretended on a CPU build of torch: tensors on the CPU are real, those on the device have shapes and no values.

Code runs as on a GPU, backward pass and threads included, and raises where it mixes the two: a tensor left behind, a
generator of the other device, an array made without a copy. What is fetched from the device is one number throughout.
Not covered: values, CUDA's kernels and their memory, streams and graphs, torch.compile, other processes.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.cuda.backward_pass import backward, grad
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

aten = torch.ops.aten
_GUARD_SOURCE = Path(__file__).with_name("cuda_device_guard.cpp")
_PACKAGE = f"{os.sep}promptlesion{os.sep}"
_FREE_BYTES, _TOTAL_BYTES = 30 * 2**30, 32 * 2**30
_PROPERTIES = SimpleNamespace(name="pretended", total_memory=_TOTAL_BYTES, major=9, minor=0, multi_processor_count=100)
_ANSWERS: dict[str, Callable[..., object]] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "is_bf16_supported": lambda including_emulation=True: True,
    "mem_get_info": lambda device=None: (_FREE_BYTES, _TOTAL_BYTES),
    "get_device_properties": lambda device=None: _PROPERTIES,
    "get_device_name": lambda device=None: _PROPERTIES.name,
    "synchronize": lambda device=None: None,
    "is_current_stream_capturing": lambda: False,
}
"""What `torch.cuda` says of the device."""
_SAVE = torch.save
_COPIES = (aten._to_copy.default, aten.copy_.default)
_INDEXINGS = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
_FETCHES = (aten._local_scalar_dense.default, aten.nonzero.default, aten.bincount.default)
_FOUND = 2
"""So many elements are said to be other than zero, whatever was asked."""


class _Shapes(FakeTensorMode):
    """Torch's tensors without values, for several threads."""

    def __init__(self) -> None:
        self._own = threading.local()
        super().__init__(allow_non_fake_inputs=True)

    @property
    def in_kernel_invocation(self) -> bool:
        """Whether this thread is inside an operation, where tensors say they are on the device `meta`."""
        return getattr(self._own, "is_inside", False)

    @in_kernel_invocation.setter
    def in_kernel_invocation(self, is_inside: bool) -> None:
        self._own.is_inside = is_inside


class PretendedCuda:
    """The device as all threads see it."""

    def __init__(self, number: float) -> None:
        self.number = number
        """Fetched from the device, whatever was asked for."""
        self.waits: Counter[str] = Counter()
        """How often each function of the package waited for the device, by file and name."""
        self.shapes = _Shapes()
        self.turn = threading.RLock()

    @contextmanager
    def seen(self) -> Iterator[None]:
        """Let this thread compute on the device, backward passes included."""
        are_lifted = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # else torch.tensor would copy to the device unnoticed
        try:
            with _Dispatch(self):
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(are_lifted)


class _Dispatch(TorchDispatchMode):
    """Computes on the CPU for real, and on the device without values."""

    def __init__(self, cuda: PretendedCuda) -> None:
        super().__init__()
        self._cuda = cuda

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> object:
        kwargs = dict(kwargs or {})
        is_made_there = torch.device(kwargs.get("device") or "cpu").type == "cuda"
        if FakeTensor not in types and not is_made_there:
            return func(*args, **kwargs)
        tensors = list(_tensors_in((*args, *kwargs.values())))
        if func not in _COPIES:
            _check_devices(func, args, tensors, kwargs.get("generator"))
        with self._cuda.turn:
            if _waits(func, args, kwargs):
                self._cuda.waits[_caller()] += 1
            if func in _FETCHES:
                return self._fetched(func, *args, **kwargs)
            if func in _INDEXINGS:
                args = (args[0], _without_masks(args[1]), *args[2:])
            if not all(isinstance(tensor, FakeTensor) for tensor in tensors):
                args, kwargs = tree_map(self._shape_of, (args, kwargs))
            with self._cuda.shapes:
                result = func(*args, **kwargs)
        if func is aten.copy_.default and not _is_there(tensors[0]):
            return tensors[0].fill_(self._cuda.number)
        return result if isinstance(result, Tensor) and _is_there(result) else tree_map(self._with_values, result)

    def _shape_of(self, leaf: object) -> object:
        is_real = isinstance(leaf, Tensor) and not isinstance(leaf, FakeTensor)
        return self._cuda.shapes.from_tensor(leaf) if is_real else leaf

    def _with_values(self, leaf: object) -> object:
        if not isinstance(leaf, FakeTensor) or _is_there(leaf):
            return leaf
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype).fill_(self._cuda.number)

    def _fetched(self, func: Any, values: Tensor, *args: Any, **kwargs: Any) -> object:
        """Return what depends on values: a number, or a tensor of whose size they decide."""
        if func is aten._local_scalar_dense.default:
            return torch.tensor(self._cuda.number).to(values.dtype).item()
        smallest = kwargs.get("minlength", args[1] if len(args) > 1 else 0)
        shape = (_FOUND, values.dim()) if func is aten.nonzero.default else (smallest,)
        with self._cuda.shapes:
            return torch.zeros(shape, dtype=torch.int64, device="cuda")


def _without_masks(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return indices in which every mask chooses the same number of elements."""
    chosen: list[Tensor | None] = []
    for index in indices:
        is_mask = index is not None and index.dtype is torch.bool
        chosen += [torch.zeros(_FOUND, dtype=torch.int64)] * index.dim() if is_mask else [index]
    return chosen


def _tensors_in(parts: Sequence[object]) -> Iterator[Tensor]:
    for part in parts:
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, list | tuple):
            yield from _tensors_in(part)


def _check_devices(
    func: Any, args: Sequence[Any], tensors: Sequence[Tensor], generator: torch.Generator | None
) -> None:
    """Raise where both devices meet; a number on the CPU may be anywhere, and indices into what is on the device."""
    if func in _INDEXINGS and _is_there(args[0]):
        tensors = list(_tensors_in((args[0], *args[2:])))
    if len({_is_there(tensor) for tensor in tensors if _is_there(tensor) or tensor.dim() > 0}) > 1:
        raise RuntimeError(f"{func}: expected all tensors on the same device; found some on the CPU, some on cuda")
    if generator is not None and generator.device.type != "cuda":
        raise RuntimeError(f"{func}: expected a generator of the device cuda; found one of {generator.device}")


def _is_there(tensor: Tensor) -> bool:
    return isinstance(tensor, FakeTensor) and tensor.fake_device.type == "cuda"


def _waits(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the CPU waits until the device is done: it copies, asks for values, or chooses by a mask."""
    if func is aten.copy_.default:
        is_free = args[2] if len(args) > 2 else kwargs.get("non_blocking", False)
        return _is_there(args[0]) != _is_there(args[1]) and not is_free
    if func is aten._to_copy.default:
        goes_there = torch.device(kwargs.get("device") or args[0].device).type == "cuda"
        return goes_there != _is_there(args[0]) and not kwargs.get("non_blocking", False)
    if func in _INDEXINGS:
        return any(index is not None and (index.dtype is torch.bool or not _is_there(index)) for index in args[1])
    return func in _FETCHES


def _caller() -> str:
    """Return the innermost function of the package that is at work."""
    frame = sys._getframe()
    while frame is not None and _PACKAGE not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{frame.f_code.co_filename.split(_PACKAGE)[-1]}:{frame.f_code.co_name}" if frame else "elsewhere"


@contextmanager
def pretended_cuda(*, number: float = 0.0) -> Iterator[PretendedCuda]:
    """Pretend that this machine has one CUDA device, in this thread and those started meanwhile.

    Args:
        number: what is fetched from the device; it decides which way code goes that asks there.
    """
    _load_guard()
    cuda = PretendedCuda(number)
    run = threading.Thread.run

    def run_seeing(thread: threading.Thread) -> None:
        with cuda.seen():
            run(thread)

    with pytest.MonkeyPatch.context() as patch, cuda.seen():
        for name, answer in _ANSWERS.items():
            patch.setattr(torch.cuda, name, answer)
        patch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
        patch.setattr(Tensor, "pin_memory", lambda values: values)
        patch.setattr(nn.Module, "_apply", _replace_values)
        patch.setattr(torch, "save", _save_fetched)
        patch.setattr(FakeTensor, "__deepcopy__", _copied)
        patch.setattr(FakeTensor, "tolist", lambda values: values.cpu().tolist())
        patch.setattr(Tensor, "backward", backward)
        patch.setattr(torch.autograd, "grad", grad)
        patch.setattr(threading.Thread, "run", run_seeing)
        yield cuda


def _save_fetched(content: object, path: Path) -> None:
    """Save what is on the device as if it had been fetched; what has no values cannot be saved."""
    _SAVE(tree_map(lambda leaf: leaf.cpu() if isinstance(leaf, FakeTensor) else leaf, content), path)


def _replace_values(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """Do what `nn.Module.to` does, with new parameters: what has no values cannot be swapped."""
    for own in module.modules() if recurse else [module]:
        for store in (own._parameters, own._buffers):
            for name, values in store.items():
                if values is not None:
                    store[name] = _like(values, change(values.detach()))
    return module


def _copied(values: Tensor, memo: dict[int, object]) -> Tensor:
    """Do what `copy.deepcopy` does."""
    copied = memo[id(values)] = _like(values, values.detach().clone())
    return copied


def _like(values: Tensor, changed: Tensor) -> Tensor:
    """Return a parameter in the place of a parameter."""
    is_weight = isinstance(values, nn.Parameter)
    return nn.Parameter(changed, requires_grad=values.requires_grad) if is_weight else changed


def why_not() -> str | None:
    """Return why CUDA cannot be pretended here."""
    if torch.version.cuda or torch.version.hip:
        return "torch is built for GPUs"
    return None if shutil.which("g++") else "there is no g++ to build the device guard with"


@cache
def _load_guard() -> None:
    """Build the guard once for each version of torch and source, and load it for the rest of the process."""
    root = Path(torch.__file__).parent
    folder = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()) / "promptlesion-pretended-cuda"
    library = folder / f"torch-{torch.__version__}-{zlib.crc32(_GUARD_SOURCE.read_bytes()):08x}.so"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        options = ["-O1", "-shared", "-fPIC", "-std=c++20", f"-I{root / 'include'}", f"-L{root / 'lib'}", "-lc10"]
        with tempfile.TemporaryDirectory(dir=folder) as own:
            built = Path(own) / library.name
            subprocess.run(["g++", str(_GUARD_SOURCE), "-o", str(built), *options], check=True)
            built.replace(library)
    ctypes.CDLL(str(library))
