"""UP-DETR (Dai et al., CVPR 2021, arXiv 2011.09094): detect the patches that were added to the queries."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.branches import MLP
from densessl.constraints import NonNegative, Share
from densessl.detectors.pretext import Pretext
from densessl.errors import SettingError
from densessl.losses import full_precision, global_count
from densessl.registry import PRETEXTS

# Argument of the decoder to which patches are added. Queries of DETR and Conditional DETR are positions. Where
# positions are boxes (DAB) or determine the reference points (Deformable), patches are added to the content.
ENTRIES = {"DETR": "query_pos", "ConditionalDETR": "query_pos", "DABDETR": "query", "DeformableDETR": "query"}


# Arguments of the decoder that have one row for each query, and are permuted together.
OF_QUERIES = ("query", "query_pos", "reference_points")


@PRETEXTS.register_module()
class UPDETR(Pretext):
    """Adds each of an image's M patches to a group of queries, and masks the decoder's self-attention between groups.

    At every layer, the query matched to the region of a patch also reconstructs the features of the patch.

    The detector's assigner matches queries and regions regardless of the groups (paper, section 3.2, and released
    code). The target is detached; the released code does not detach it, which is equivalent for a frozen backbone.

    Figure: ``own_patch``, the share of matched queries of the last layer that are matched to the region of their patch.

    Args:
        drop: probability that a query of an image does not get its patch.
        shuffle: permute the assignment of learnt queries to patches at every step (off in the released recipe).
        reconstruct: weight of the reconstruction loss; 0 leaves it out.
    """

    def __init__(self, drop: Share = 0.1, shuffle: bool = False, reconstruct: NonNegative = 1.0):
        super().__init__()
        self.drop, self.shuffle, self.reconstruct = drop, shuffle, reconstruct

    def attach(self, detector):
        kind = type(detector).__name__
        if kind not in ENTRIES or getattr(detector, "as_two_stage", False):
            raise SettingError(
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
        maps = full_precision(*detector.backbone(batch.regions.patches))
        self.features = torch.cat([level.mean((2, 3)) for level in maps], 1)
        images, count = len(batch.keys), inputs[self.entry].shape[1]
        patches = patches_an_image(batch.regions.owner, images)
        self.groups = query_groups(count, patches).to(self.features.device)
        keep, order = self.draw(images, count, self.features.device)
        queries = {name: inputs[name] for name in OF_QUERIES if name in inputs}
        vectors = self.patch_to_query(self.features).unflatten(0, (images, patches))
        inputs.update(with_patches(queries, self.entry, vectors, self.groups, keep, order))
        with self_attention_masked(detector.decoder, self.groups[:, None] != self.groups):
            yield

    def draw(self, images: int, count: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """The queries that keep their patch, (images, count) bool or None for all, and the order of the learnt queries,
        (count,) or None for the given order."""
        keep = torch.rand(images, count, device=device) > self.drop if self.training else None
        return keep, torch.randperm(count, device=device) if self.training and self.shuffle else None

    def losses(self, states, matches, batch, rows):
        hits = torch.cat([self.groups[match.queries] == match.targets for match in matches[-1]])
        figures = {"own_patch": hits.float().sum() / max(1, len(hits))}
        if not self.reconstruct:
            return figures
        features = self.features = self.features.detach()  # otherwise their graph would be kept until the next step
        count = global_count(features.new_tensor(float(len(features)))).clamp(min=1)
        terms = []
        for state, layer in zip(states, matches):
            predicted = torch.cat([self.align(image[match.queries]) for image, match in zip(state, layer)])
            target = torch.cat([features[image[match.targets]] for image, match in zip(rows, layer)])
            terms.append(self.reconstruct * reconstruction(predicted, target) / count)
        return {
            "loss_feature": terms[-1],
            **{f"d{number}.loss_feature": term for number, term in enumerate(terms[:-1])},
            **figures,
        }


def with_patches(
    queries: Mapping[str, Tensor],
    entry: str,
    vectors: Tensor,
    groups: Tensor,
    keep: Tensor | None = None,
    order: Tensor | None = None,
) -> dict[str, Tensor]:
    """Add patches to queries.

    Args:
        queries: the arguments of the decoder with one row for each query, (N, Q, ...) each.
        entry: name of the argument to which patches are added.
        vectors: (N, M, C), vectors of the patches of each image.
        groups: (Q,), the patch of the query at each position.
        keep: (N, Q), zero for queries that do not get their patch; None if all do.
        order: (Q,), the learnt query at each position; None for the given order.
    """
    changed = dict(queries) if order is None else {name: value[:, order] for name, value in queries.items()}
    patches = vectors[:, groups]
    changed[entry] = changed[entry] + (patches if keep is None else patches * keep[..., None])
    return changed


def query_groups(queries: int, patches: int) -> Tensor:
    """The patch of each query, (queries,) int64: consecutive groups of queries, of sizes as equal as possible.

    If there are more patches than queries, some patches get no query. Every query belongs to a group, even if groups
    have fewer queries than there are groups. In that case the mask of the released code (updetr.py, line 51) lets some
    queries attend to nothing, not even themselves, so their outputs are not finite.
    """
    return torch.arange(queries) * patches // queries


def patches_an_image(owner: Tensor, images: int) -> int:
    """The number of patches of each image.

    Raises:
        SettingError: not all images have the same number, or they have none.
    """
    counts = torch.bincount(owner, minlength=images).tolist()
    if set(counts) != {counts[0] or None}:
        raise SettingError(
            f"UPDETR: images have {counts} regions, expected the same number for all, and at least one: set "
            "dataset.at_least to the number that is drawn"
        )
    return counts[0]


@contextmanager
def self_attention_masked(decoder: nn.Module, blocked: Tensor) -> Iterator[None]:
    """During one forward pass, mask the self-attention of all decoder layers by ``blocked`` (Q, Q).

    The mask is passed to the attention modules directly, because MMDetection's decoders pass it on under different
    names, and some drop it silently.
    """

    def give(module: nn.Module, args: tuple, options: dict) -> tuple[tuple, dict]:
        return args, {**options, "attn_mask": blocked}

    with ExitStack() as stack:
        for layer in decoder.layers:
            stack.callback(layer.self_attn.register_forward_pre_hook(give, with_kwargs=True).remove)
        yield


def reconstruction(predicted: Tensor, target: Tensor) -> Tensor:
    """Sum over pairs of the squared distance of normalised vectors (P, E), in at least fp32."""
    predicted, target = full_precision(predicted, target)
    return (F.normalize(predicted, dim=1) - F.normalize(target, dim=1)).square().sum()


def patch_channels(backbone: nn.Module) -> tuple[int, ...]:
    """Number of channels of each of a backbone's outputs."""
    with torch.no_grad():
        probe = next(backbone.parameters()).new_zeros(1, 3, 64, 64)
        return tuple(level.shape[1] for level in backbone(probe))
