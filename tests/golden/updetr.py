"""Golden cases of UP-DETR, by the official code (commit 44c0c6e)."""

from types import MethodType

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from densessl.data.batch import Batch
from densessl.detectors import DetectorPretraining
from densessl.detectors.updetr import query_groups
from tests.golden.case import Case
from tests.golden.detreg import DETR, close, compare, compare_losses, criterion, region_batch

# Beginnings of official names and ours, and parts of the transformer's.
PREFIXES = {
    "transformer.": "detector.",
    "class_embed.": "detector.bbox_head.fc_cls.",
    "bbox_embed.layers.0.": "detector.bbox_head.reg_ffn.layers.0.0.",
    "bbox_embed.layers.1.": "detector.bbox_head.reg_ffn.layers.1.",
    "bbox_embed.layers.2.": "detector.bbox_head.fc_reg.",
    "query_embed.": "detector.query_embedding.",
    "input_proj.": "detector.neck.convs.0.conv.",
    "patch2query.": "pretext.patch_to_query.",
    "feature_align.layers.": "pretext.align.linear",
}
PARTS = {
    ".self_attn.": ".self_attn.attn.",
    ".multihead_attn.": ".cross_attn.attn.",
    ".linear1.": ".ffn.layers.0.0.",
    ".linear2.": ".ffn.layers.1.",
    ".norm1.": ".norms.0.",
    ".norm2.": ".norms.1.",
    ".norm3.": ".norms.2.",
    "coder.norm.": "coder.post_norm.",
}


def _renamed(official: str) -> str:
    prefix = next(prefix for prefix in PREFIXES if official.startswith(prefix))
    name = PREFIXES[prefix] + official[len(prefix) :]
    for part, ours in PARTS.items() if prefix == "transformer." else ():
        name = name.replace(part, ours)
    return name


def updetr_crit(case: Case) -> None:
    reconstruct = case["weight/loss_feature"].item() if "weight/loss_feature" in case else 0.0
    pretext = dict(type="UPDETR", reconstruct=reconstruct)
    model = criterion(case, DETR, pretext, {"neck.in_channels": [512]}, 1)
    images, patches = case["tgt_boxes"].shape[:2]
    batch = region_batch(torch.zeros(images, 3, 8, 8), case["tgt_boxes"], torch.zeros(images * patches, 1))
    model.pretext.groups = query_groups(case["logits"].shape[2], patches)
    if reconstruct:
        model.pretext.align = nn.Identity()
        model.pretext.features = case["gt_feature"]
        features = case["features"].requires_grad_()
        compare(case, model, batch, features, 1, last=[features])
        case.informative("grad_gt_feature_undetached")  # here the target is detached
    else:
        compare(case, model, batch, torch.zeros(*case["logits"].shape[:3], 1), 1, last=[])


@MODELS.register_module(force=True)
class GoldenMaps(nn.Module):
    """A backbone that is given its output."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_parameter("unused", nn.Parameter(torch.zeros(channels), requires_grad=False))

    def forward(self, maps: Tensor) -> tuple[Tensor]:
        return (maps if maps.shape[1] == len(self.unused) else self.unused.expand(len(maps), -1)[:, :, None, None],)


def updetr_model(case: Case) -> None:
    model, batch = _model(case), _batch(case)
    seen = _watch(model)
    losses = model.loss(batch)
    total, _ = model.parse_losses(losses)
    total.backward()
    _compare_queries(case, seen)
    hidden, (logits, boxes) = seen["states"], seen["predicted"]
    outputs = {"pred_logits": logits[..., _swapped(logits.shape[-1])], "pred_boxes": boxes}
    if model.pretext.reconstruct:
        outputs["pred_feature"] = model.pretext.align(hidden)
    seeing = (case["decoder_mask"] == 0).any(1)  # the official mask leaves some queries that see nothing
    for name, value in outputs.items():
        assert value.isfinite().all()
        expected = case[name]
        finite = expected.isfinite() & seeing[:, None]
        assert finite.all() or not seeing.all()
        torch.testing.assert_close(value.detach()[finite], expected[finite], rtol=2e-5, atol=2e-5)
    if "gt_feature" in case:  # not without reconstruction
        case.value("gt_feature", model.pretext.features, 2e-5, 2e-5)
    assert total.isfinite()
    # Where the release reconstructs, its gradient has the way through the target as well, which is cut here.
    case.informative("grad_patch_featmap")
    if "total" not in case:
        return
    compare_losses(case, losses)
    close(case, "grad_query_pos", seen["query_pos"].grad.transpose(0, 1))
    close(case, "grad_src_feat", batch.views[0].grad)
    if not model.pretext.reconstruct:
        close(case, "grad_patch_featmap", batch.regions.patches.grad)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in case.group("grad/"):
        gradient = gradients[_renamed(name)]
        if name.startswith("class_embed"):
            gradient = gradient[_swapped(len(gradient))]
        if name == "query_embed.weight":  # of queries that were not asked, zero
            gradient = torch.cat(
                [gradient, gradient.new_zeros(len(case[f"grad/{name}"]) - len(gradient), gradient.shape[1])]
            )
        case.value(f"grad/{name}", gradient, 2e-5, 2e-5)


updetr_maskbug = updetr_model


def _swapped(channels: int) -> Tensor:
    """The official code's object is class 1."""
    return torch.tensor([1, 0, *range(2, channels)])


def _model(case: Case) -> DetectorPretraining:
    """The detector of a case with its weights. In evaluation the official one may be asked only for the queries of the
    patches given: here it has no others."""
    _, _, _, channels, width, heads, encoders, decoders, inner = case["cfg_B_Q_M_C_d_heads_enc_dec_ffn"].tolist()
    queries = len(case["query_pos"])
    attention = dict(embed_dims=width, num_heads=heads, dropout=0.0, batch_first=True)
    ffn = dict(embed_dims=width, feedforward_channels=inner, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type="ReLU"))
    options = {
        "num_queries": queries,
        "backbone": dict(type="GoldenMaps", channels=channels),
        "neck.in_channels": [channels],
        "neck.out_channels": width,
        "encoder.num_layers": encoders,
        "encoder.layer_cfg": dict(self_attn_cfg=dict(attention), ffn_cfg=dict(ffn)),
        "decoder.num_layers": decoders,
        "decoder.layer_cfg": dict(self_attn_cfg=dict(attention), cross_attn_cfg=dict(attention), ffn_cfg=dict(ffn)),
        "positional_encoding.num_feats": width // 2,
        "bbox_head.embed_dims": width,
        "bbox_head.num_classes": case["pred_logits"].shape[-1] - 1,
    }
    weights = dict(case.group("sd/"))
    reconstruct = float(any(name.startswith("feature_align") for name in weights))
    shuffle, drop = bool(case["query_shuffle"].item()), case["mask_ratio"].item()
    pretext = dict(type="UPDETR", drop=drop, shuffle=shuffle, reconstruct=reconstruct)
    model = DetectorPretraining(DETR, pretext, options)
    if case["pre_norm"].item():
        _norm_first(model.detector)
    weights |= {name: value[_swapped(len(value))] for name, value in weights.items() if name.startswith("class_embed")}
    weights["query_embed.weight"] = weights["query_embed.weight"][:queries]
    missing, unexpected = model.load_state_dict({_renamed(k): v for k, v in weights.items()}, strict=False)
    assert not unexpected and set(missing) == {"global_step", "detector.backbone.unused"}, (missing, unexpected)
    model.train(bool(case["training"].item()))
    if model.training:
        model.pretext.draw = lambda *_: (case["keep"].mT if "keep" in case else None, case["perm"] if shuffle else None)
    return model


def _batch(case: Case) -> Batch:
    valid = case["mask"] == 0
    sizes = [(int(own.any(0).sum()), int(own.any(1).sum())) for own in valid]
    for own, (width, height) in zip(valid, sizes):
        assert own[:height, :width].all() and own.sum() == width * height
    given = case["num_patches_given"].item()
    boxes = case["tgt_boxes"] if "tgt_boxes" in case else torch.full((len(valid), given, 4), 0.5)
    return region_batch(case["src_feat"].requires_grad_(), boxes, case["patch_featmap"].requires_grad_(), sizes)


def _watch(model: DetectorPretraining) -> dict:
    """What the decoder will be asked and say."""
    seen, decoder = {}, model.detector.decoder

    def asked(module, args, options):
        seen["query_pos"] = options["query_pos"]
        options["query_pos"].retain_grad()

    decoder.register_forward_pre_hook(asked, with_kwargs=True)
    decoder.layers[-1].self_attn.attn.register_forward_pre_hook(
        lambda module, args, options: seen.update(mask=options["attn_mask"]), with_kwargs=True
    )
    model.detector.positional_encoding.register_forward_hook(lambda module, args, output: seen.update(pos=output))
    model.detector.bbox_head.register_forward_hook(
        lambda module, args, output: seen.update(states=args[0], predicted=output)
    )
    return seen


def _compare_queries(case: Case, seen: dict) -> None:
    valid = (case["mask"] == 0)[:, None].expand_as(case["pos"])
    pos = seen["pos"].expand_as(case["pos"])
    torch.testing.assert_close(pos[valid], case["pos"][valid], rtol=1e-5, atol=1e-5)
    case.value("query_pos", seen["query_pos"].transpose(0, 1), 2e-5, 2e-5)
    groups = query_groups(*case["cfg_B_Q_M_C_d_heads_enc_dec_ffn"][1:3].tolist())
    for name, masked in (("decoder_mask", seen["mask"]), ("attention_mask_full", groups[:, None] != groups)):
        visible = case[name] == 0
        rows = visible.any(1)
        assert rows.any()
        assert torch.equal(~masked[rows], visible[rows]), name
    if not case["query_shuffle"].item():
        case.exact("perm", torch.arange(len(groups)))
    case.informative("perm")  # of an evaluation, where nothing is shuffled


def _norm_first(detector: nn.Module) -> None:
    """Layers that normalise what goes into attentions and FFN instead of what comes out, and a norm after the last:
    what MMDetection's DETR has no option for."""
    detector.encoder.post_norm = nn.LayerNorm(detector.embed_dims)
    detector.encoder.register_forward_hook(lambda module, args, output: module.post_norm(output))
    for layer in detector.encoder.layers:
        layer.forward = MethodType(_encoder_layer, layer)
    for layer in detector.decoder.layers:
        layer.forward = MethodType(_decoder_layer, layer)


def _encoder_layer(self, query, query_pos, key_padding_mask):
    normed, positions = self.norms[0](query), dict(query_pos=query_pos, key_pos=query_pos)
    query = self.self_attn(normed, identity=query, **positions, key_padding_mask=key_padding_mask)
    return self.ffn(self.norms[1](query), identity=query)


def _decoder_layer(self, query, key, value, query_pos, key_pos, key_padding_mask):
    query = self.self_attn(self.norms[0](query), identity=query, query_pos=query_pos, key_pos=query_pos)
    positions = dict(query_pos=query_pos, key_pos=key_pos)
    normed = self.norms[1](query)
    query = self.cross_attn(normed, key, value, query, **positions, key_padding_mask=key_padding_mask)
    return self.ffn(self.norms[2](query), identity=query)
