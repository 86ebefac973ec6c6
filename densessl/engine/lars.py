"""LARS as PixPro trains with it, and the parameter groups it needs.

LARS (You et al., arXiv 1708.03888) scales the gradient of every tensor to the size of the tensor itself. Weight decay
is added before the norms are taken, the momentum buffer holds the scaled gradient, and biases and norm parameters
take no part in either: one-dimensional tensors are too small for their norm to mean much.
"""

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.optim import Optimizer

from densessl.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS


def lars_gradient(
    param: Tensor, grad: Tensor, weight_decay: float = 0.0, trust_coefficient: float = 1e-3, eps: float = 1e-8
) -> Tensor:
    """The gradient LARS hands to momentum SGD: ``d * trust_coefficient * |p| / (|d| + eps)`` with ``d = g + wd * p``.

    The factor is 1 where ``p`` or ``d`` is all zeros, so that a zero-initialised tensor can leave zero. Norms are
    over the whole tensor.

    Args:
        param: p, any shape.
        grad: g, same shape; not modified.

    Returns:
        A new tensor, same shape and dtype.
    """
    return _lars_gradients([param], [grad], weight_decay, trust_coefficient, eps)[0]


def _lars_gradients(
    params: Sequence[Tensor], grads: Sequence[Tensor], weight_decay: float, trust_coefficient: float, eps: float
) -> list[Tensor]:
    """:func:`lars_gradient` of many tensors of one device, in a fixed number of launches and without a host sync."""
    decayed = torch._foreach_add(grads, params, alpha=weight_decay)
    param_norms = torch.stack(torch._foreach_norm(params))
    grad_norms = torch.stack(torch._foreach_norm(decayed))
    ratios = trust_coefficient * param_norms / (grad_norms + eps)
    scales = torch.where((param_norms > 0) & (grad_norms > 0), ratios, 1.0)
    torch._foreach_mul_(decayed, list(scales.unbind()))
    return list(decayed)


@OPTIMIZERS.register_module()
class LARS(Optimizer):
    """Momentum SGD (no dampening, no Nesterov) on gradients scaled by :func:`lars_gradient`.

    Every option can be set per parameter group. A group with ``trust=False`` still gets its ``weight_decay`` but is not
    scaled; parameters whose gradient is None are left alone. ``p.grad`` is not modified.

    Args:
        params: tensors or groups, see :func:`split_parameters`.
        lr: learning rate (PixPro: 1.0 * batch / 256).
        momentum: of the buffer ``b <- momentum * b + scaled gradient``.
        weight_decay: added to the gradient before it is scaled.
        trust_coefficient: size of one update at lr 1, relative to the size of the tensor.
        eps: added to the gradient norm.
        trust: whether to scale.

    Raises:
        ValueError: an option is negative, or a parameter group names no tensor.
        RuntimeError: a gradient is sparse.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 1e-3,
        eps: float = 1e-8,
        trust: bool = True,
    ):
        options = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
        }
        for name, value in options.items():
            if value < 0:
                raise ValueError(f"LARS: {name} is {value}, expected a number >= 0")
        super().__init__(params, dict(options, trust=trust))

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update. Returns what ``closure``, which re-evaluates the loss, returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict) -> None:
        grads = [param.grad for param in params]
        if any(grad.is_sparse for grad in grads):
            raise RuntimeError("LARS does not take sparse gradients; build the embedding with sparse=False")
        if group["trust"]:
            updates = _lars_gradients(params, grads, group["weight_decay"], group["trust_coefficient"], group["eps"])
        elif group["weight_decay"]:
            updates = torch._foreach_add(grads, params, alpha=group["weight_decay"])
        else:
            updates = grads
        if group["momentum"]:
            for param in params:
                if "momentum_buffer" not in self.state[param]:
                    self.state[param]["momentum_buffer"] = torch.zeros_like(param)
            buffers = [self.state[param]["momentum_buffer"] for param in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates)
            updates = buffers
        torch._foreach_add_(params, updates, alpha=-group["lr"])


NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
EXCLUSIONS: dict[str, Callable[[str, Tensor, nn.Module], bool]] = {
    "1d": lambda name, param, owner: param.ndim <= 1,
    "bias": lambda name, param, owner: name.rpartition(".")[2] == "bias",
    "norm": lambda name, param, owner: isinstance(owner, NORMS),
}


def split_parameters(
    model: nn.Module,
    weight_decay: float | None = None,
    exclude: Sequence[str] = ("1d",),
    no_decay: Sequence[str] = (),
    lr_mult: dict[str, float] | None = None,
) -> list[dict]:
    """The trainable parameters of ``model`` in as few optimiser groups as the options allow, in the model's order.

    Args:
        weight_decay: of the parameters that are not excluded; None leaves it to the optimiser.
        exclude: rules for parameters without weight decay and LARS scaling. ``'1d'``: biases, norm parameters and
            anything else of at most one dimension (PixPro, BYOL); ``'bias'``: named bias; ``'norm'``: owned by a norm
            layer.
        no_decay: shell patterns of full parameter names excluded as well, e.g. ``'*.pos_embed'``.
        lr_mult: factor of the learning rate by prefix of the name; the longest prefix that fits counts.

    Returns:
        Groups ``{params, weight_decay, trust, lr_scale}``. ``trust`` is read by :class:`LARS` only, ``lr_scale`` by
        :class:`densessl.engine.lr_hook.LRHook`.

    Raises:
        ValueError: nothing is trainable; a rule does not exist; a pattern or prefix fits no trainable parameter.
    """
    lr_mult = dict(lr_mult or {})
    unknown = [rule for rule in exclude if rule not in EXCLUSIONS]
    if isinstance(exclude, str) or unknown:
        raise ValueError(f"exclude={exclude!r}: expected a tuple of rules among {sorted(EXCLUSIONS)}")

    named = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    if not named:
        raise ValueError(f"{type(model).__name__} has no parameter that requires a gradient")
    for pattern in no_decay:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            raise _unmatched("no_decay pattern", pattern, named)
    for prefix in lr_mult:
        if not any(_starts(name, prefix) for name, _ in named):
            raise _unmatched("lr_mult prefix", prefix, named)

    groups: dict[tuple[bool, float], dict] = {}
    for name, param in named:
        owner = model.get_submodule(name.rpartition(".")[0])
        excluded = any(EXCLUSIONS[rule](name, param, owner) for rule in exclude) or any(
            fnmatchcase(name, pattern) for pattern in no_decay
        )
        fitting = [prefix for prefix in lr_mult if _starts(name, prefix)]
        lr_scale = float(lr_mult[max(fitting, key=len)]) if fitting else 1.0
        if (excluded, lr_scale) not in groups:
            group = {"params": [], "trust": not excluded, "lr_scale": lr_scale}
            decay = 0.0 if excluded else weight_decay
            groups[excluded, lr_scale] = group if decay is None else dict(group, weight_decay=decay)
        groups[excluded, lr_scale]["params"].append(param)
    return list(groups.values())


def _starts(name: str, prefix: str) -> bool:
    """Whether the dotted ``name`` lies at or under ``prefix``; ``backbone.layer1`` is not under ``backbone.layer``."""
    return name == prefix or name.startswith(prefix.rstrip(".") + ".")


def _unmatched(what: str, text: str, named: list[tuple[str, Tensor]]) -> ValueError:
    names = {".".join(name.split(".")[: depth + 1]) for name, _ in named for depth in range(name.count(".") + 1)}
    close = difflib.get_close_matches(text, sorted(names), n=1, cutoff=0.0)
    return ValueError(f"{what} {text!r} fits no trainable parameter; the nearest name is {close[0]!r}")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DenseOptimWrapperConstructor:
    """Builds optimiser and wrapper on the groups of :func:`split_parameters`, for LARS, SGD, AdamW or any other.

    Args:
        optim_wrapper_cfg: ``optimizer`` (with ``lr``) and the arguments of the wrapper, whose ``type`` defaults to
            ``DenseOptimWrapper``.
        paramwise_cfg: ``exclude``, ``no_decay`` and ``lr_mult`` of :func:`split_parameters`.

    Raises:
        ValueError: an unknown key of ``paramwise_cfg``; ``optimizer`` or its ``lr`` is missing.
    """

    KEYS = ("exclude", "no_decay", "lr_mult")

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.wrapper_cfg.setdefault("type", "densessl.DenseOptimWrapper")
        self.optimizer_cfg = dict(self.wrapper_cfg.pop("optimizer", None) or {})
        if "type" not in self.optimizer_cfg or "lr" not in self.optimizer_cfg:
            raise ValueError("optim_wrapper.optimizer needs `type` and `lr`")
        self.paramwise_cfg = dict(paramwise_cfg or {})
        for key in self.paramwise_cfg:
            if key not in self.KEYS:
                near = difflib.get_close_matches(key, self.KEYS, n=1, cutoff=0.0)[0]
                raise ValueError(f"paramwise_cfg key {key!r}: expected one of {self.KEYS}, nearest is {near!r}")

    def __call__(self, model: nn.Module) -> OptimWrapper:
        if is_model_wrapper(model):
            model = model.module
        groups = split_parameters(model, self.optimizer_cfg.get("weight_decay"), **self.paramwise_cfg)
        for group in groups:
            group["lr"] = self.optimizer_cfg["lr"] * group["lr_scale"]
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=groups))
        return OPTIM_WRAPPERS.build(dict(self.wrapper_cfg, optimizer=optimizer))
