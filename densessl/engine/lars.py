"""LARS in the three forms that published recipes use, and the parameter groups it needs.

LARS (You et al., arXiv 1708.03888) scales the gradient of every tensor to the norm of the tensor itself. Most recipes
exclude biases and norm parameters: one-dimensional tensors are too small for their norm to be meaningful.
"""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import torch
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.optim import Optimizer

from densessl.constraints import Config, NonNegative, Share
from densessl.errors import SettingError
from densessl.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from densessl.wording import choose, nearest

# The forms of LARS, and the eps of each form's released code.
FORMS = {"lars": 1e-8, "larc": 1e-8, "openselfsup": 0.0}


def lars_gradient(
    param: Tensor,
    grad: Tensor,
    weight_decay: float = 0.0,
    trust_coefficient: float = 1e-3,
    eps: float | None = None,
    form: str = "lars",
) -> Tensor:
    """The scaled gradient that LARS passes to momentum SGD: ``d * ratio`` with ``d = g + weight_decay * p``.

    - ``"lars"``: ``ratio = trust_coefficient * |p| / (|d| + eps)``, or 1 if ``p`` or ``d`` is all zeros, so that a
      zero-initialised tensor can leave zero.
    - ``"larc"``: ``ratio = trust_coefficient * |p| / (|g| + weight_decay * |p| + eps)``. If ``p`` or ``g`` is all
      zeros, the result is ``g`` without weight decay.
    - ``"openselfsup"``: the ratio of "larc" without that exception: a tensor of zeros stays zero.

    Norms are L2 norms over the whole tensor.

    Args:
        param: p, any shape.
        grad: g, same shape; not modified.
        eps: added to the denominator of the ratio; None uses the value of the form's released code (``FORMS``).
        form: one of the three.

    Returns:
        A new tensor, same shape and dtype.
    """
    return _lars_gradients([param], [grad], weight_decay, trust_coefficient, eps, form)[0]


def _lars_gradients(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    weight_decay: float,
    trust_coefficient: float,
    eps: float | None,
    form: str,
) -> list[Tensor]:
    """Apply :func:`lars_gradient` to many tensors on one device, without a host sync."""
    eps = FORMS[form] if eps is None else eps
    decayed = torch._foreach_add(grads, params, alpha=weight_decay)
    param_norms = torch.stack(torch._foreach_norm(params))
    grad_norms = torch.stack(torch._foreach_norm(decayed if form == "lars" else grads))
    sizes = grad_norms + eps if form == "lars" else grad_norms + weight_decay * param_norms + eps
    ratios = trust_coefficient * param_norms / sizes
    nonzero = (param_norms > 0) & (grad_norms > 0)
    if form == "lars":
        scales = torch.where(nonzero, ratios, 1.0)
    elif form == "larc":
        # d = g + decay * p. If g is zero, scale 0 gives g; if p is zero, d is g, and the scale is 1.
        scales = torch.where(nonzero, ratios, (grad_norms > 0).to(ratios.dtype))
    else:
        scales = torch.where(sizes > 0, ratios, 0.0)
    torch._foreach_mul_(decayed, list(scales.unbind()))
    return list(decayed)


@OPTIMIZERS.register_module()
class LARS(Optimizer):
    """Momentum SGD (no dampening, no Nesterov) on gradients scaled by :func:`lars_gradient`.

    The published recipes use three forms, which are not interchangeable:

    - ``"lars"``: PixPro, and with ``eps=0`` DeepMind's BYOL. ``b <- momentum * b + scaled gradient``,
      ``p <- p - lr * b``.
    - ``"larc"``: apex' LARC with ``clip=False`` (SwAV, SimSiam's linear evaluation): the same update with LARC's scale.
      These recipes exclude no parameter: ``exclude=()`` in :func:`split_parameters`.
    - ``"openselfsup"``: OpenSelfSup's LARS (TWIST): LARC's scale, and ``b <- momentum * b + lr * scaled gradient``,
      ``p <- p - b``. A gradient in the buffer keeps the learning rate of its step. With a constant learning rate, this
      equals "larc".

    Every option can be set per parameter group. A group with ``trust=False`` still gets its ``weight_decay`` but is not
    scaled. Parameters whose gradient is None are unchanged. ``p.grad`` is not modified.

    Args:
        params: tensors or parameter groups; see :func:`split_parameters`.
        lr: learning rate (PixPro: 1.0 * batch / 256).
        momentum: momentum of the buffer.
        weight_decay: weight decay, added to the gradient before it is scaled.
        trust_coefficient: norm of one update at lr 1, relative to the norm of the tensor.
        eps: added to the denominator of the scale; None uses the value of the form's released code: 1e-8, or 0 for
            "openselfsup".
        trust: whether to scale the gradients.
        form: form of LARS, one of the three.

    Raises:
        SettingError: an option is negative, or ``form`` is unknown.
        ValueError: a parameter group has no tensor.
        RuntimeError: a gradient is sparse.
    """

    def __init__(
        self,
        params: Iterable,
        lr: NonNegative,
        momentum: Share = 0.9,
        weight_decay: NonNegative = 0.0,
        trust_coefficient: NonNegative = 1e-3,
        eps: NonNegative | None = None,
        trust: bool = True,
        form: Literal["lars", "larc", "openselfsup"] = "lars",
    ):
        options = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
        }
        for name, value in options.items():
            if value is not None and value < 0:
                raise SettingError(f"LARS: {name} is {value}, expected a number >= 0")
        super().__init__(params, dict(options, trust=trust, form=form))

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        choose("LARS form", group["form"], FORMS)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update the parameters once. ``closure``, if given, re-evaluates the loss, which is returned."""
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
            raise RuntimeError("LARS does not support sparse gradients; build the embedding with sparse=False")
        lr, decay = group["lr"], group["weight_decay"]
        if group["trust"]:
            updates = _lars_gradients(params, grads, decay, group["trust_coefficient"], group["eps"], group["form"])
        elif decay:
            updates = torch._foreach_add(grads, params, alpha=decay)
        else:
            updates = grads
        if group["momentum"]:
            for param in params:
                if "momentum_buffer" not in self.state[param]:
                    self.state[param]["momentum_buffer"] = torch.zeros_like(param)
            buffers = [self.state[param]["momentum_buffer"] for param in params]
            into_buffer, lr = (lr, 1.0) if group["form"] == "openselfsup" else (1.0, lr)
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, updates, alpha=into_buffer)
            updates = buffers
        torch._foreach_add_(params, updates, alpha=-lr)


NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
EXCLUSIONS: dict[str, Callable[[str, Tensor, nn.Module], bool]] = {
    "1d": lambda name, param, owner: param.ndim <= 1,
    "bias": lambda name, param, owner: name.rpartition(".")[2] == "bias",
    "norm": lambda name, param, owner: isinstance(owner, NORMS),
}


def split_parameters(
    model: nn.Module,
    weight_decay: float | None = None,
    exclude: Sequence[Literal["1d", "bias", "norm"]] = ("1d",),
    no_decay: Sequence[str] = (),
    lr_mult: dict[str, NonNegative] | None = None,
    constant_lr: Sequence[str] = (),
) -> list[dict]:
    """Split the trainable parameters of ``model`` into as few optimiser groups as the options allow, in model order.

    Args:
        weight_decay: weight decay of the parameters that are not excluded; None uses the optimiser's.
        exclude: rules that exclude parameters from weight decay and LARS scaling. ``'1d'``: biases, norm parameters and
            all others of at most one dimension (PixPro, BYOL); ``'bias'``: parameters named bias; ``'norm'``:
            parameters of norm layers.
        no_decay: shell patterns of full names of further parameters to exclude, e.g. ``'*.pos_embed'``.
        lr_mult: factors of the learning rate by prefix of the parameter name. Prefixes are shell patterns, e.g.
            ``'*.sampling_offsets'``; the longest one that matches applies.
        constant_lr: prefixes, also shell patterns, of parameters whose learning rate stays at the schedule's base, e.g.
            ``'objectives.simsiam.predictor'`` (SimSiam's ``fix_pred_lr``).

    Returns:
        Groups ``{params, weight_decay, trust, lr_scale, lr_constant}``. ``trust`` is read by :class:`LARS` only,
        ``lr_scale`` and ``lr_constant`` by :class:`densessl.engine.lr_hook.LRHook`.

    Raises:
        SettingError: no parameter is trainable, a rule is unknown, or a pattern or prefix matches no trainable
            parameter.
    """
    lr_mult = dict(lr_mult or {})
    unknown = [rule for rule in exclude if rule not in EXCLUSIONS]
    if isinstance(exclude, str) or unknown:
        raise SettingError(f"exclude={exclude!r}: expected a tuple of rules among {sorted(EXCLUSIONS)}")
    if isinstance(constant_lr, str):
        raise SettingError(f"constant_lr={constant_lr!r}: expected a tuple of prefixes of parameter names")

    named = [(name, param) for name, param in model.named_parameters() if param.requires_grad]
    if not named:
        raise SettingError(f"{type(model).__name__} has no parameter that requires a gradient")
    for pattern in no_decay:
        if not any(fnmatchcase(name, pattern) for name, _ in named):
            raise _unmatched("no_decay pattern", pattern, named)
    for option, prefixes in (("lr_mult", lr_mult), ("constant_lr", constant_lr)):
        for prefix in prefixes:
            if not any(_starts(name, prefix) for name, _ in named):
                raise _unmatched(f"{option} prefix", prefix, named)

    groups: dict[tuple[bool, float, bool], dict] = {}
    for name, param in named:
        owner = model.get_submodule(name.rpartition(".")[0])
        excluded = any(EXCLUSIONS[rule](name, param, owner) for rule in exclude) or any(
            fnmatchcase(name, pattern) for pattern in no_decay
        )
        fitting = [prefix for prefix in lr_mult if _starts(name, prefix)]
        lr_scale = float(lr_mult[max(fitting, key=len)]) if fitting else 1.0
        constant = any(_starts(name, prefix) for prefix in constant_lr)
        key = (excluded, lr_scale, constant)
        if key not in groups:
            group = {"params": [], "trust": not excluded, "lr_scale": lr_scale, "lr_constant": constant}
            decay = 0.0 if excluded else weight_decay
            groups[key] = group if decay is None else dict(group, weight_decay=decay)
        groups[key]["params"].append(param)
    return list(groups.values())


def _starts(name: str, prefix: str) -> bool:
    """Whether the dotted ``name`` is ``prefix`` or below it; ``backbone.layer1`` is not below ``backbone.layer``."""
    return fnmatchcase(name, prefix) or fnmatchcase(name, prefix.rstrip(".") + ".*")


def _unmatched(what: str, text: str, named: list[tuple[str, Tensor]]) -> SettingError:
    names = {".".join(name.split(".")[: depth + 1]) for name, _ in named for depth in range(name.count(".") + 1)}
    (near,) = nearest(text, sorted(names), count=1, cutoff=0.0)
    return SettingError(f"{what} {text!r} fits no trainable parameter; the nearest name is {near!r}")


FUSED = ("Adam", "AdamW")


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DenseOptimWrapperConstructor:
    """Builds the optimiser, on the groups of :func:`split_parameters`, and its wrapper.

    It works with any optimiser. Adam and AdamW use PyTorch's fused implementation unless ``optimizer`` sets
    ``fused=False`` or ``foreach``: it passes over the weights once instead of a dozen times, and takes a seventh of the
    time on a CPU.

    Args:
        optim_wrapper_cfg: ``optimizer`` (with ``lr``) and the arguments of the wrapper, whose ``type`` defaults to
            ``DenseOptimWrapper``.
        paramwise_cfg: ``exclude``, ``no_decay``, ``lr_mult`` and ``constant_lr`` of :func:`split_parameters`.

    Raises:
        SettingError: ``paramwise_cfg`` has an unknown key, or ``optimizer``, its ``type`` or its ``lr`` is missing.
    """

    KEYS = ("exclude", "no_decay", "lr_mult", "constant_lr")
    WRAPPER = "densessl.DenseOptimWrapper"  # default type of the wrapper

    def __init__(
        self,
        optim_wrapper_cfg: dict,
        paramwise_cfg: Annotated[dict, Config(split_parameters, given=("model", "weight_decay"))] | None = None,
    ):
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.wrapper_cfg.setdefault("type", self.WRAPPER)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop("optimizer", None) or {})
        if "type" not in self.optimizer_cfg or "lr" not in self.optimizer_cfg:
            raise SettingError("optim_wrapper.optimizer needs `type` and `lr`")
        self.paramwise_cfg = dict(paramwise_cfg or {})
        for key in self.paramwise_cfg:
            choose("paramwise_cfg key", key, self.KEYS)

    def __call__(self, model: nn.Module) -> OptimWrapper:
        if is_model_wrapper(model):
            model = model.module
        groups = split_parameters(model, self.optimizer_cfg.get("weight_decay"), **self.paramwise_cfg)
        for group in groups:
            group["lr"] = self.optimizer_cfg["lr"] * group["lr_scale"]
        config = dict(self.optimizer_cfg)
        if config["type"] in FUSED and "foreach" not in config:
            config.setdefault("fused", True)
        optimizer = OPTIMIZERS.build(dict(config, params=groups))
        return OPTIM_WRAPPERS.build(dict(self.wrapper_cfg, optimizer=optimizer))
