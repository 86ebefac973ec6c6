"""Golden cases of the SCFS family, by the official code (commit 7bb7c37), which contains DINO's loss and head."""

import re
from collections import defaultdict

import torch
from torch import Tensor, nn

from densessl.branches.queue import Centre
from densessl.data.batch import Batch
from densessl.losses import cell_cosines, centred_softmax, cross_view_entropy, soft_cross_entropy
from densessl.model import TwoBranch
from densessl.registry import MODELS
from densessl.schedules import Horizon
from tests.golden.case import Case

STAGES = ("layer2", "layer3", "layer4")
# Official names of the heads' parts and ours.
HEAD_KEYS = {
    "last_layer.weight_v": "prototypes.weight",
    "last_layer.weight_g": "prototypes.gain",
    "bn1": "norm1",
    "bn2": "norm2",
    "bn3": "norm3",
}
SHALLOW_MLP_KEYS = {"mlp.0": "mlp.linear0", "mlp.1": "mlp.norm0", "mlp.3": "mlp.linear1", "mlp.4": "mlp.norm1"}
DINO_MLP_KEYS = {"mlp.0": "mlp.linear0", "mlp.2": "mlp.linear1", "mlp.4": "mlp.linear2", "mlp.6": "mlp.linear3"}


@MODELS.register_module(force=True)
class GoldenStages(nn.Module):
    """Three 3x3 convolutions of stride 2, each with a ReLU: the tiny backbone the case was made with."""

    def __init__(self, widths: tuple[int, int, int]):
        super().__init__()
        for stage, inner, outer in zip(STAGES, (3, *widths), widths):
            self.add_module(stage, nn.Sequential(nn.Conv2d(inner, outer, 3, 2, 1), nn.ReLU()))
        self.out_channels = tuple(widths)

    def forward(self, x):
        maps = []
        for stage in STAGES:
            x = getattr(self, stage)(x)
            maps.append(x)
        return tuple(maps)


def scfs(case: Case) -> None:
    """In float64: batch norms over a handful of vectors amplify the rounding of the file's float32 alone up to its
    tolerances. With one image they go beyond; for that the tolerance stated with the arrays is ten times as large."""
    globals_, locals_ = case["global_crops"].double(), case["local_crops"].double()
    images = globals_.shape[1]
    tolerance = 1e-3 if images == 1 else 1e-4
    model, names = _model(case, len(locals_))
    seen = _watch(model)
    batch = Batch([*globals_, *locals_], [None] * (2 + len(locals_)), [{}] * (2 + len(locals_)), None)
    figures = model.loss(batch)
    total, _ = model.parse_losses(figures)
    total.backward()

    def value(name: str, actual: Tensor) -> None:
        case.value(name, actual, rtol=tolerance)

    def close(name: str, actual: Tensor) -> None:
        """Of gradients, and of the unit vectors behind batch norms: relative to the largest entry."""
        expected = case[name].double()
        atol = tolerance * expected.abs().max().item() + 1e-6
        torch.testing.assert_close(actual.detach(), expected, rtol=0, atol=atol, msg=lambda text: f"{name}: {text}")

    value("loss_total", total)
    value("loss_final", figures["dino.loss"])
    assert abs(figures["dino.teacher_temperature"].item() - case["teacher_temp"].item()) < 1e-6
    (final,), (teacher,) = seen["online.head"], seen["target.head"]
    for part, rows in (("g", slice(2 * images)), ("l", slice(2 * images, None))):
        value(f"stu_final_{part}", final[rows])
        close(f"grad_stu_final_{part}", final.grad[rows])
    value("tea_final_g", teacher)
    value("center_final_after", model.objectives["dino"].centre.value[None])
    centres = model.objectives["scfs"].centres.values()
    value("center_shallow_after", torch.stack([centre.value[None] for centre in centres]))
    for level, stage in enumerate(STAGES):
        short = f"l{stage[-1]}"
        for i, (part, kind) in enumerate((("g", "global"), ("l", "local"))):
            student = seen[f"online.{stage}_head"][i]
            close(f"stu_{short}_{part}", student)
            close(f"grad_stu_{short}_{part}", student.grad)
            close(f"tea_{short}_{part}", seen[f"target.{stage}_head"][i])
            value(f"loss_{short}_{part}", figures[f"scfs.{kind}_level{level}"])
        value(f"feat_{short}_tea", seen["target.backbone"][0][level])
        value(f"feat_{short}_stu_local", seen["online.backbone"][1][level])
        value(f"searched_{short}", seen[f"target.{stage}_head_input"][1])
        attention = case[f"attention_{short}"].double()
        value(f"attention_{short}", _attention(case, short, attention))
        torch.testing.assert_close(figures[f"scfs.attention_level{level}"], attention.mean(), rtol=1e-4, atol=1e-5)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in case.group("g/"):
        close(f"g/{name}", gradients[names[f"student/{name}"]])


def _attention(case: Case, short: str, like: Tensor) -> Tensor:
    """The attention (crops, N, h, w) alone: by what the search multiplies each cell of the first global crop. A cell of
    zeros has no direction; there it is taken from ``like``."""
    whole = case[f"feat_{short}_tea"].double().chunk(2)[0]
    squares = whole.square().sum(1)
    found = []
    for local in case[f"feat_{short}_stu_local"].double().chunk(len(like)):
        searched = cell_cosines(whole, local.mean((2, 3)))[:, None] * whole
        found.append((searched * whole).sum(1) / squares)
    return torch.where(squares > 0, torch.stack(found), like)


def _model(case: Case, crops: int) -> tuple[TwoBranch, dict[str, str]]:
    """The model of a case, and our names of its parameters by official name."""
    weights = {**case.group("student/"), **case.group("teacher/")}
    width = {name: len(value) for name, value in weights.items()}
    widths = tuple(width[f"backbone.{stage}.0.weight"] for stage in STAGES)
    linears = [width[name] for name in sorted(weights) if re.fullmatch(r"head\.mlp\.\d+\.weight", name)]
    epochs = case.hp("warmup_teacher_temp_epochs")
    teacher_temperature = case.hp("teacher_temp")
    if epochs:
        teacher_temperature = dict(
            type="linear",
            start=case.hp("warmup_teacher_temp"),
            end=case.hp("teacher_temp"),
            epochs=epochs,
            by_epoch=True,
            inclusive=True,
        )
    common = dict(
        views=((0, 1), tuple(range(2, 2 + crops))),
        student_temperature=case.hp("student_temp"),
        teacher_temperature=teacher_temperature,
        momentum=case.hp("center_momentum"),
    )
    dino = dict(
        type="DINO",
        prototypes=width["head.last_layer.weight_v"],
        hidden=linears[:-1],
        bottleneck=linears[-1],
        # The stored gradients are those before the official training loop drops the last layer's.
        train_prototypes=True,
        **common,
    )
    search = dict(
        type="SCFS",
        width=width["layer2_head.conv1.weight"],
        hidden=width["layer2_head.mlp.0.weight"],
        dim=width["layer2_head.mlp.3.weight"],
        **common,
    )
    target = dict(kind="ema", momentum=0.996, timing="after_step")
    model = TwoBranch(dict(backbone=dict(type="GoldenStages", widths=widths)), [dino, search], target)
    # One optimiser step an epoch: the step is the epoch.
    model.begin(Horizon(1, case.hp("nepochs"), case.hp("nepochs"), 1, 1))
    names = {f"{prefix}/{name}": _renamed(prefix, name) for prefix in ("student", "teacher") for name in weights}
    state = {ours: case[official] for official, ours in names.items()}
    state["global_step"] = torch.tensor(case.hp("epoch"))
    state["objectives.dino.centre.value"] = case["center_final_before"][0]
    for key, centre in zip(model.objectives["scfs"].centres, case["center_shallow_before"]):
        state[f"objectives.scfs.centres.{key}.value"] = centre[0]
    model.load_state_dict(model.state_dict() | state)
    missing = [name for name, _ in model.named_parameters() if name not in state]
    assert not missing, missing
    return model.train().double(), names


def _renamed(prefix: str, name: str) -> str:
    branch = {"student": "online", "teacher": "target"}[prefix]
    part, rest = name.split(".", 1)
    if part == "backbone":
        return f"{branch}.backbone.{rest}"
    if part == "head":
        owner, tables = "dino_head", (HEAD_KEYS, DINO_MLP_KEYS)
    else:
        owner, tables = f"scfs_level{STAGES.index(part.removesuffix('_head'))}", (HEAD_KEYS, SHALLOW_MLP_KEYS)
    for table in tables:
        for official, ours in table.items():
            if rest == official or rest.startswith(official + "."):
                rest = ours + rest.removeprefix(official)
                break
    return f"{branch}.projectors.{owner}.{rest}"


def _watch(model: TwoBranch) -> dict[str, list]:
    """What leaves the backbones and heads of both branches (and enters heads), in order of the calls."""
    seen = defaultdict(list)

    def watch(key: str, module: nn.Module) -> None:
        def hook(_, inputs, output):
            seen[f"{key}_input"].append(inputs[0])
            seen[key].append(output)
            if isinstance(output, Tensor) and output.requires_grad:
                output.retain_grad()

        module.register_forward_hook(hook)

    for which, branch in (("online", model.online), ("target", model.target.branch(model.online))):
        watch(f"{which}.backbone", branch.backbone)
        watch(f"{which}.head", branch.projectors["dino_head"])
        for level, stage in enumerate(STAGES):
            watch(f"{which}.{stage}_head", branch.projectors[f"scfs_level{level}"])
    return seen


def scfs_loss(case: Case) -> None:
    """The losses alone, on given logits."""
    crops, temperature, student_temperature = case.hp("ncrops"), case.hp("temp"), case.hp("student_temp")
    centre = Centre(case["center"].shape[1])
    centre.value.copy_(case["center"][0])
    targets = centred_softmax(case["teacher"], centre.value, temperature).unflatten(0, (2, -1))
    student = case["student"].requires_grad_()
    loss = cross_view_entropy(student.unflatten(0, (crops + 2, -1)), targets, student_temperature)
    loss.backward()
    case.value("loss_dino", loss)
    case.grad("grad_student_dino", student.grad)

    whole, local = case["student_g"].requires_grad_(), case["student_l"].requires_grad_()
    loss_global = cross_view_entropy(whole.unflatten(0, (2, -1)), targets, student_temperature)
    local_targets = centred_softmax(case["teacher_l"], None, temperature)
    loss_local = soft_cross_entropy(local, local_targets, student_temperature).mean()
    (loss_global + loss_local).backward()
    case.value("loss_shallow_g", loss_global)
    case.value("loss_shallow_l", loss_local)
    case.grad("grad_student_g", whole.grad)
    case.grad("grad_student_l", local.grad)

    centre.update(case["teacher"])
    case.value("center_after", centre.value[None])
