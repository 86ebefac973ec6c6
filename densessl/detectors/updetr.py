"""UP-DETR (Dai et al., CVPR 2021, arXiv 2011.09094): find the patches that queries were given."""

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

# Argument of the decoder that patches are added to: DETR's and Conditional DETR's queries are their positions; where
# those are boxes (DAB) or make the reference points (Deformable), patches are content (fact sheet, section 6.5).
ENTRIES = {"DETR": "query_pos", "ConditionalDETR": "query_pos", "DABDETR": "query", "DeformableDETR": "query"}


# Arguments that belong to the query: what is permuted with it.
OF_QUERIES = ("query", "query_pos", "reference_points")


@PRETEXTS.register_module()
class UPDETR(Pretext):
    """Each of an image's M patches is added to a group of queries, which the decoder keeps apart; the query that was
    given a patch's region also reconstructs the patch's features, at every layer.

    Which query was given which region is the detector's assigner's to say, who does not know of groups (paper,
    section 3.2, and code). The target is detached; the released code's is not, which is the same while the backbone is
    frozen.

    Figure: ``own_patch``, the share of matched queries of the last layer whose region is that of their own patch.

    Args:
        drop: probability that a query of an image goes without its patch.
        shuffle: permute which learnt query gets which patch, once a step (off in the released recipe).
        reconstruct: weight of the reconstruction; 0 leaves it out.
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
        self.features = torch.cat([item.mean((2, 3)) for item in maps], 1)
        images, count = len(batch.keys), inputs[self.entry].shape[1]
        patches = patches_an_image(batch.regions.owner, images)
        self.groups = query_groups(count, patches).to(self.features.device)
        keep, order = self.draw(images, count, self.features.device)
        asked = {name: inputs[name] for name in OF_QUERIES if name in inputs}
        vectors = self.patch_to_query(self.features).unflatten(0, (images, patches))
        inputs.update(with_patches(asked, self.entry, vectors, self.groups, keep, order))
        with self_attention_masked(detector.decoder, self.groups[:, None] != self.groups):
            yield

    def draw(self, images: int, count: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
        """Which queries keep their patch, (images, count) bool, and the order of the learnt queries, (count,); None
        for all, and as they are."""
        keep = torch.rand(images, count, device=device) > self.drop if self.training else None
        return keep, torch.randperm(count, device=device) if self.training and self.shuffle else None

    def losses(self, states, matches, batch, rows):
        own = torch.cat([self.groups[match.queries] == match.targets for match in matches[-1]])
        figures = {"own_patch": own.float().sum() / max(1, len(own))}
        if not self.reconstruct:
            return figures
        features = self.features = self.features.detach()  # else their graph would live on until the next step
        count = global_count(features.new_tensor(float(len(features)))).clamp(min=1)
        terms = []
        for state, layer in zip(states, matches):
            predicted = torch.cat([self.align(own[match.queries]) for own, match in zip(state, layer)])
            target = torch.cat([features[own[match.targets]] for own, match in zip(rows, layer)])
            terms.append(self.reconstruct * reconstruction(predicted, target) / count)
        return {
            "loss_feature": terms[-1],
            **{f"d{number}.loss_feature": term for number, term in enumerate(terms[:-1])},
            **figures,
        }


def with_patches(
    asked: Mapping[str, Tensor],
    entry: str,
    vectors: Tensor,
    groups: Tensor,
    keep: Tensor | None = None,
    order: Tensor | None = None,
) -> dict[str, Tensor]:
    """Queries with patches added.

    Args:
        asked: of the decoder's arguments those that belong to queries, each (N, Q, ...).
        entry: which of them patches are added to.
        vectors: (N, M, C) of the images' patches.
        groups: (Q,), whose patch each query is given.
        keep: (N, Q), zero where a query goes without; None for none.
        order: (Q,), which learnt query is in each one's place; None for its own. Groups are of places.
    """
    found = dict(asked) if order is None else {name: value[:, order] for name, value in asked.items()}
    given = vectors[:, groups]
    found[entry] = found[entry] + (given if keep is None else given * keep[..., None])
    return found


def query_groups(queries: int, patches: int) -> Tensor:
    """Which patch each query is given, (queries,) int64: groups in order, as equal as they can be.

    Of more patches than queries, some are given to none. Every query is in the group of its own, also where a group has
    fewer queries than there are groups: there the released code's mask (updetr.py, line 51) leaves queries that see
    nothing, not even themselves, and whose outputs are not finite.
    """
    return torch.arange(queries) * patches // queries


def patches_an_image(owner: Tensor, images: int) -> int:
    """How many patches each of the images has.

    Raises:
        ValueError: not all have the same number, or they have none.
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
