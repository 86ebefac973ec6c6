"""The optimiser wrapper: MMEngine's OptimWrapper plus mixed precision, which also runs on CPUs."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from densessl.constraints import Config, Count, Positive
from densessl.errors import SettingError
from densessl.registry import OPTIM_WRAPPERS
from densessl.wording import choose

PRECISIONS = ("auto", "bf16", "fp16", "fp32")


def has_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices in hardware; emulation is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return bool(_cpu_flags() & {"amx_bf16", "avx512_bf16", "bf16"})
    return False


def _cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """Instruction set extensions of the first core, as Linux lists them on x86 (flags) and ARM (Features)."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                return set(value.split())
    return set()


def resolve_precision(precision: str, device: torch.device) -> str:
    """The precision of the forward pass on ``device``: ``'bf16'``, ``'fp16'`` or ``'fp32'``.

    ``'auto'`` is bf16 if the device computes it in hardware, else fp32. It is never fp16, which can overflow.

    Raises:
        SettingError: ``precision`` is unknown, or is fp16 on a device other than CUDA.
    """
    choose("precision", precision, PRECISIONS)
    if precision == "fp16" and device.type != "cuda":
        raise SettingError(
            f"optim_wrapper.precision: found 'fp16', which needs a CUDA device, and this is {device.type!r}; expected "
            "'bf16', 'fp32' or 'auto'"
        )
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return precision


@torch.no_grad()
def clip_each_grad_(params: Sequence[Tensor], max_norm: float) -> None:
    """Clip the gradient of each parameter separately to the norm ``max_norm``, in place and without a host sync.

    ``g <- g * min(1, max_norm / (|g| + 1e-6))``, as in the released codes of DINO and SCFS.

    Args:
        params: parameters, at least one; all must have a gradient.
    """
    grads = [param.grad for param in params]
    factors = torch._foreach_norm(grads)
    torch._foreach_add_(factors, 1e-6)
    torch._foreach_reciprocal_(factors)
    torch._foreach_mul_(factors, max_norm)
    torch._foreach_clamp_max_(factors, 1.0)
    torch._foreach_mul_(grads, factors)


CLIPS = {"norm": clip_grad_norm_, "value": clip_grad_value_, "per_parameter": clip_each_grad_}
CLIP_TYPES = tuple(CLIPS)


class ClipRules(TypedDict, total=False):
    """Stricter types for the arguments of the clipping functions than their signatures have.

    Attributes:
        max_norm: largest norm of the gradient, of all parameters together or of each one.
        norm_type: the p of the p-norm.
        clip_value: largest absolute value of a gradient's entry.
    """

    max_norm: Positive
    norm_type: Positive
    clip_value: Positive


@OPTIM_WRAPPERS.register_module()
class DenseOptimWrapper(OptimWrapper):
    """Runs forward passes under autocast and updates in float32. Accumulation and clipping are MMEngine's.

    Autocast's cache of converted weights is off. A step of this library uses every weight for several views, some of
    them without gradients. With the cache, the gradients of the views would be summed in low precision before they are
    converted back. Without it, each gradient is converted first, and the sum is computed in float32.

    Args:
        optimizer: the optimiser; its first parameter determines the device.
        precision: precision of the forward pass: ``'auto'``, ``'bf16'``, ``'fp16'`` or ``'fp32'``; see
            :func:`resolve_precision`.
        loss_scale: arguments of ``torch.amp.GradScaler`` for fp16.
        accumulative_counts: iterations accumulated into one step.
        clip_grad: arguments of ``torch.nn.utils.clip_grad_norm_``, of ``clip_grad_value_`` with ``type="value"``, or
            of :func:`clip_each_grad_` with ``type="per_parameter"``. Gradients are unscaled before they are clipped.

    Raises:
        SettingError: ``precision`` or the type of ``clip_grad`` is unknown, or "per_parameter" has arguments other than
            ``max_norm``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto",
        loss_scale: Annotated[dict, Config(torch.amp.GradScaler, given=("device",))] | None = None,
        accumulative_counts: Count = 1,
        clip_grad: Annotated[dict, Config(CLIPS, "norm", given=("parameters", "params"), refine=ClipRules)]
        | None = None,
    ):
        clip_grad = None if clip_grad is None else dict(clip_grad)
        clip_type = choose("clip_grad.type", (clip_grad or {}).get("type", "norm"), CLIP_TYPES)
        if clip_type == "per_parameter":
            del clip_grad["type"]
            if set(clip_grad) != {"max_norm"}:
                raise SettingError(
                    f"clip_grad of type 'per_parameter' needs `max_norm` alone, found {sorted(clip_grad)}"
                )
        super().__init__(optimizer, accumulative_counts, clip_grad)
        if clip_type == "per_parameter":
            self.clip_func = clip_each_grad_
        self.device_type = optimizer.param_groups[0]["params"][0].device.type
        self.precision = resolve_precision(precision, torch.device(self.device_type))
        self.scaler = None
        if self.precision == "fp16":
            self.scaler = torch.amp.GradScaler(self.device_type, **(loss_scale or {}))
        print_log(f"Precision: {self.precision} on {self.device_type} (configured: {precision}).", logger="current")

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        autocast = torch.autocast(self.device_type, dtype, enabled=dtype is not None, cache_enabled=False)
        with super().optim_context(model), autocast:
            yield

    def backward(self, loss: Tensor, **kwargs) -> None:
        super().backward(loss if self.scaler is None else self.scaler.scale(loss), **kwargs)

    def step(self, **kwargs) -> None:
        if self.scaler is None:
            super().step(**kwargs)
            return
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict:
        state = super().state_dict()
        return state if self.scaler is None else dict(state, loss_scaler=self.scaler.state_dict())

    def load_state_dict(self, state_dict: dict) -> None:
        """Restore optimiser and loss scaler. If the checkpoint was trained in another precision, the scaler is new."""
        state_dict = dict(state_dict)
        scaler_state = state_dict.pop("loss_scaler", None)
        if self.scaler is not None and scaler_state:
            self.scaler.load_state_dict(scaler_state)
        elif self.scaler is not None or scaler_state:
            print_log(
                f"The checkpoint was not trained in {self.precision}; its loss scale is not restored.",
                logger="current",
                level=logging.WARNING,
            )
        super().load_state_dict(state_dict)
