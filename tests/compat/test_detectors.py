"""MMDetection's detectors train and predict without mmcv's compiled operators."""

import contextlib

import pytest
import torch

from tests.compat import detectors

pytestmark = pytest.mark.det


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", detectors.CONFIGS)
def test_one_step_and_one_prediction(name: str, bf16: bool) -> None:
    model = detectors.build(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    precision = torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext()

    with precision:
        losses = model(**model.data_preprocessor(detectors.batch(), training=True), mode="loss")
    total, logged = model.parse_losses(losses)
    assert all(value.isfinite() for value in logged.values()), logged
    total.backward()
    optimizer.step()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad.isfinite().all(), key
    for part in ("backbone.layer1.0.conv1", "backbone.layer4.1.conv2", "neck"):
        grads = [parameter.grad for key, parameter in model.named_parameters() if key.startswith(part)]
        assert any(grad is not None and grad.any() for grad in grads), part
    assert any(not torch.equal(parameter, before[key]) for key, parameter in model.named_parameters())

    model.eval()
    with torch.no_grad(), precision:
        predictions = model(**model.data_preprocessor(detectors.batch()), mode="predict")
    assert len(predictions) == 2
    for sample in predictions:
        found, (height, width) = sample.pred_instances, sample.ori_shape
        assert 0 < len(found) <= detectors.SMALL["max_per_img"]
        assert found.bboxes.isfinite().all() and found.scores.isfinite().all()
        limit = found.bboxes.new_tensor([width, height, width, height])
        assert (found.bboxes >= 0).all() and (found.bboxes <= limit).all()
        assert ((found.labels >= 0) & (found.labels < detectors.CLASSES)).all()
        assert ("masks" in found) == (name == "Mask R-CNN")
