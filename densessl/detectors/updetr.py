"""UP-DETR (Dai et al., CVPR 2021, arXiv 2011.09094): find the patches that queries were given."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.branches import MLP
from densessl.detectors.pretext import Pretext
from densessl.losses import full_precision, global_count
from densessl.registry import PRETEXTS

# Argument of the decoder that patches are added to: DETR's and Conditional DETR's queries are their positions; where
# those are boxes (DAB) or make the reference points (Deformable), patches are content (fact sheet, section 6.5).
ENTRIES = {"DETR": "query_pos", "ConditionalDETR": "query_pos", "DABDETR": "query", "DeformableDETR": "query"}


@PRETEXTS.register_module()
class UPDETR(Pretext):
    """Each of an image's M patches is added to a group of queries, which the decoder keeps apart; the query that was
    given a patch's region also reconstructs the patch's features, at every layer.

    Args:
        drop: probability that a query of an image goes without its patch.
        shuffle: permute which learnt query gets which patch, once a step (off in the released recipe).
        reconstruct: weight of the reconstruction; 0 leaves it out.
    """

    def __init__(self, drop: float = 0.1, shuffle: bool = False, reconstruct: float = 1.0):
        super().__init__()
        self.drop, self.shuffle, self.reconstruct = drop, shuffle, reconstruct

    def attach(self, detector):
        kind = type(detector).__name__
        if kind not in ENTRIES or getattr(detector, "as_two_stage", False):
            raise ValueError(
                f"UPDETR: {kind} picks its queries from the encoder's output, or is not known; expected one of "
                f"{sorted(ENTRIES)} in one stage. DETReg works on all"
            )
        self.entry = ENTRIES[kind]
        channels = sum(patch_channels(detector.backbone))
        self.patch_to_query = nn.Linear(channels, detector.embed_dims)
        if self.reconstruct:
            self.align = MLP(dims=(detector.embed_dims, detector.embed_dims, channels))

    @contextmanager
    def queries(self, detector, inputs, batch):
        with torch.no_grad():
            maps = detector.backbone(batch.regions.patches)
            self.features = torch.cat([item.mean((2, 3)) for item in maps], 1)
        images, count = len(batch.keys), inputs[self.entry].shape[1]
        groups = query_groups(count, patches_an_image(batch.regions.owner, images)).to(self.features.device)
        given = self.patch_to_query(self.features).unflatten(0, (images, -1))[:, groups]
        if self.training:
            given = given * (torch.rand(images, count, 1, device=given.device) > self.drop)
            if self.shuffle:
                inputs["query_pos"] = inputs["query_pos"][:, torch.randperm(count, device=given.device)]
        inputs[self.entry] = inputs[self.entry] + given
        with self_attention_masked(detector.decoder, groups[:, None] != groups):
            yield

    def losses(self, states, matches, batch, rows):
        if not self.reconstruct:
            return {}
        count = global_count(self.features.new_tensor(float(len(batch.regions.owner)))).clamp(min=1)
        terms = []
        for state, layer in zip(states, matches):
            predicted = torch.cat([self.align(own[match.queries]) for own, match in zip(state, layer)])
            target = torch.cat([self.features[own[match.targets]] for own, match in zip(rows, layer)])
            terms.append(self.reconstruct * reconstruction(predicted, target) / count)
        return {"loss_feature": terms[-1], **{f"loss_feature_{i}": term for i, term in enumerate(terms[:-1])}}


def query_groups(queries: int, patches: int) -> Tensor:
    """Which patch each query is given, (queries,) int64: groups in order, as equal as they can be."""
    return torch.arange(queries) * patches // queries


def patches_an_image(owner: Tensor, images: int) -> int:
    """How many patches each of the images has.

    Raises:
        ValueError: not all have the same number.
    """
    counts = torch.bincount(owner, minlength=images)
    if (counts != counts[0]).any():
        raise ValueError(f"UPDETR: images have {counts.tolist()} regions, expected the same number for all")
    return int(counts[0])


@contextmanager
def self_attention_masked(decoder: nn.Module, blocked: Tensor) -> Iterator[None]:
    """For the time of one forward pass, no query of a layer sees those it is ``blocked`` (Q, Q) from.

    The mask is handed to the attentions themselves: on its way through MMDetection's decoders it has another name in
    each, and some drop it without a word.
    """

    def give(module: nn.Module, args: tuple, options: dict) -> tuple[tuple, dict]:
        return args, {**options, "attn_mask": blocked}

    with ExitStack() as stack:
        for layer in decoder.layers:
            stack.callback(layer.self_attn.register_forward_pre_hook(give, with_kwargs=True).remove)
        yield


def reconstruction(predicted: Tensor, target: Tensor) -> Tensor:
    """Sum over pairs of the squared distance of unit vectors (P, E), in at least fp32."""
    predicted, target = full_precision(predicted, target)
    return (F.normalize(predicted, dim=1) - F.normalize(target, dim=1)).square().sum()


def patch_channels(backbone: nn.Module) -> tuple[int, ...]:
    """Channels of a backbone's outputs."""
    with torch.no_grad():
        probe = next(backbone.parameters()).new_zeros(1, 3, 64, 64)
        return tuple(item.shape[1] for item in backbone(probe))
