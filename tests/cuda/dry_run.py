"""A GPU that is not there: PyTorch's fake tensors on `cuda:0`, and a count of where the host waits for it."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses import fake_tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastreid

Model = TypeVar("Model", bound=nn.Module)

CUDA = torch.device("cuda:0")
PACKAGE = str(Path(fastreid.__file__).parent)

aten = torch.ops.aten
READS = {  # how many there are, whether weights are valid, whether a matrix is singular …
    aten._local_scalar_dense.default,
    aten._linalg_solve_ex.default,
    aten._unique2.default,
    aten.bincount.default,
    aten.equal.default,
    aten.linalg_inv_ex.default,
    aten.masked_select.default,
    aten.multinomial.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
}
TAKES_CPU = {  # that is copied, a number of it, too
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten.where.self,
}
PRODUCTS = {  # of one dtype; the fake ones do not look
    aten.addmm.default,
    aten.baddbmm.default,
    aten.bmm.default,
    aten.convolution.default,
    aten.mm.default,
}
PINNING = {aten._pin_memory.default, aten.pin_memory.default}
PINNED = "is_pinned_in_dry_run"  # attribute of a tensor


class FakeCuda(TorchDispatchMode):
    """What is on CUDA has a shape, a dtype and a device, but no numbers; what is on the CPU is as ever.

    A number that is read of the device is 0 (a truth value False), and so is all that is copied from it.

    Attributes:
        waits: how often the host waits for the device, by ``file.function`` of the package. It does where a
            number is read, where anything is copied to the CPU, and where something is copied to the device
            without ``non_blocking``, be it an index, or from memory that is not pinned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # asks for a property
            return func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        places = {tensor.device.type for tensor in tensors}
        target = torch.device(kwargs.get("device") or (tensors[0].device if tensors else "cpu")).type
        if places | {target} == {"cpu"}:
            return self._on_cpu(func, args, kwargs)
        if torch.is_inference_mode_enabled():
            with self:  # there, what is made of other operations comes here as a whole
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if func is aten._to_copy.default and places | {target} == {"cpu", "cuda"}:
            return self._copy(func, args, kwargs, target, args[0], kwargs.get("non_blocking", False))
        if func is aten.copy_.default and places == {"cpu", "cuda"}:
            non_blocking = kwargs.get("non_blocking", args[2:3] == (True,))
            return self._copy(func, args, kwargs, target, args[1], non_blocking)
        if func in PRODUCTS and len({tensor.dtype for tensor in tensors}) > 1:
            raise RuntimeError(f"{func} of tensors of more than one dtype")
        if func in READS or (func in TAKES_CPU and "cpu" in places):
            self._count_wait()
        if func is aten._fused_sgd_.default and places == {"cuda"}:
            return None  # in place, and torch has no fake one
        if func is aten._local_scalar_dense.default:
            with no_dispatch():
                return torch.zeros((), dtype=args[0].dtype).item()
        return func(*args, **kwargs)

    def _on_cpu(self, func: Any, args: tuple, kwargs: dict) -> Any:
        if func is aten.is_pinned.default:
            return hasattr(args[0], PINNED)
        with no_dispatch():
            if func not in PINNING:
                return func(*args, **kwargs)
            pinned = args[0].clone()
        setattr(pinned, PINNED, True)
        return pinned

    def _copy(
        self, func: Any, args: tuple, kwargs: dict, target: str, source: Tensor, non_blocking: bool
    ) -> Tensor:
        if target == "cpu" or not (non_blocking and hasattr(source, PINNED)):
            self._count_wait()
        if target == "cuda":
            return func(*args, **kwargs)
        with no_dispatch():
            if func is aten.copy_.default:
                return args[0].zero_()
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)

    def _count_wait(self) -> None:
        frame = sys._getframe(2)
        while frame and not frame.f_code.co_filename.startswith(PACKAGE):
            frame = frame.f_back
        where = f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}" if frame else "outside"
        self.waits[where] += 1


@contextmanager
def dry_run(build: Callable[[], Model]) -> Iterator[tuple[Model, Counter[str]]]:
    """In the block there is a CUDA device, and on it the model that `build` makes on the meta device.

    The gradients that ``backward`` leaves behind have the parameters' shapes, and no more: autograd's engine
    needs a real device.

    Yields:
        The model, and the waits so far, see `FakeCuda`.
    """
    answers = {"is_available": True, "current_device": 0, "device_count": 1, "is_bf16_supported": True}
    answers["get_device_capability"] = (9, 0)
    with ExitStack() as stack:
        for name, answer in (answers | {"manual_seed_all": None}).items():
            _patch(stack, torch.cuda, name, lambda *_, answer=answer, **__: answer)
        model = build()
        _patch(stack, fake_tensor.FakeTensorMode, "avoid_device_init", True)
        _patch(stack, fake_tensor, "init_gpu_context", lambda device: None)
        _patch(stack, Tensor, "backward", lambda *_, **__: _leave_gradients(model))
        stack.enter_context(fake_tensor.FakeTensorMode(allow_non_fake_inputs=True))
        mode = stack.enter_context(FakeCuda())
        yield model.to_empty(device=CUDA), mode.waits


def _patch(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    stack.enter_context(mock.patch.object(owner, name, value))


def _leave_gradients(model: nn.Module) -> None:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.empty_like(parameter)


def why_impossible() -> str:
    """Return what of this torch's private parts a dry run lacks; empty if it works."""
    try:
        with dry_run(lambda: nn.Linear(2, 2, device="meta")) as (model, waits):
            with torch.autocast("cuda", torch.bfloat16):
                total = model(torch.ones(3, 2).to(CUDA)).sum()
            total.backward()
            assert (total.device, total.dtype, total.item()) == (CUDA, torch.float32, 0.0)
            assert waits.total() == 2
    except Exception as error:  # whatever another version's private parts come to
        return f"torch {torch.__version__}: {type(error).__name__}: {error}"
    return ""
