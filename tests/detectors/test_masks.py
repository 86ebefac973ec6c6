"""Groups of queries that cannot see each other, in every family UP-DETR is for."""

import contextlib

import pytest
import torch

from densessl.detectors import updetr
from tests.detectors.small import ONE_STAGE, decoded, random_batch, small

PATCHES = 3  # which twenty queries are no multiple of


@pytest.fixture(scope="module", params=ONE_STAGE)
def model(request):
    model = small(request.param, dict(type="UPDETR"))
    model.pretext.draw = lambda *_: (None, None)
    return model


@pytest.fixture
def unmasked(monkeypatch):
    monkeypatch.setattr(updetr, "self_attention_masked", lambda *_: contextlib.nullcontext())


def _outputs(model, changed: int | None = None) -> torch.Tensor:
    batch = random_batch([PATCHES, PATCHES])
    if changed is not None:
        batch.regions.patches[changed] += 1.0
    return decoded(model, batch)


def test_the_mask_changes_what_the_decoder_says(model, monkeypatch):
    masked = _outputs(model)
    monkeypatch.setattr(updetr, "self_attention_masked", lambda *_: contextlib.nullcontext())
    # Not yet at the first layer where its queries are all zero, but for their positions: there all attend to the same.
    assert (_outputs(model)[-1] - masked[-1]).abs().amax((1, 2)).min() > 1e-3


@pytest.mark.parametrize("patch", range(PATCHES))
def test_a_patch_reaches_its_own_group_only(model, patch):
    before, after = _outputs(model), _outputs(model, changed=PATCHES + patch)
    changed = (before != after).any(-1)
    own = updetr.query_groups(20, PATCHES) == patch
    assert not changed[:, 0].any()  # the other image
    assert torch.equal(changed[:, 1], own.expand_as(changed[:, 1]))  # at every layer


def test_without_the_mask_it_reaches_all(model, unmasked):
    changed = (_outputs(model) != _outputs(model, changed=PATCHES)).any(-1)
    assert changed[-1, 1].all()


def test_the_mask_is_gone_after_the_pass(model, monkeypatch):
    attentions = [layer.self_attn for layer in model.detector.decoder.layers]
    hooks = [len(item._forward_pre_hooks) for item in attentions]
    _outputs(model)
    assert [len(item._forward_pre_hooks) for item in attentions] == hooks

    def broken(*args, **kwargs):
        raise FloatingPointError

    monkeypatch.setattr(model.detector, "forward_decoder", broken)
    with pytest.raises(FloatingPointError):
        _outputs(model)
    assert [len(item._forward_pre_hooks) for item in attentions] == hooks


def test_more_groups_than_queries_a_group_keep_all_finite():
    """Seven groups of two or three: the released code's mask opens its first two only."""
    model = small("detr", dict(type="UPDETR"))
    losses = model.loss(random_batch([7, 7]))
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.requires_grad)
