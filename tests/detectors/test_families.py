"""Every family, pretrained, exported, and fine-tuned as the stock detector of eighty classes it becomes."""

import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from densessl.detectors import DINO33, DetectorPretraining
from densessl.detectors.dino import RefPointHead
from densessl.errors import LoadError
from densessl.registry import MODELS
from densessl.weights.detector.export import export_detector
from densessl.weights.detector.load import load_detector
from densessl.weights.detector.stock import build_detector
from tests.detectors.small import DETREG, FAMILIES, ONE_STAGE, random_batch, small

pytestmark = pytest.mark.det

UPDETR = dict(type="UPDETR")
SHAPES_OF_33 = {"type": "densessl.DINO33"}
# Inputs of the first layer of DINO's `ref_point_head` in either line of MMDetection; and whose is installed.
WIDTHS = {"mmdet-3.3": 512, "onedl-3.5.1": 1024}
STOCK_SHAPES = "onedl-3.5.1" if "onedl-mmdetection" in packages_distributions()["mmdet"] else "mmdet-3.3"
RUNS = [(family, DETREG, {}) for family in FAMILIES]
RUNS += [("dino", DETREG, SHAPES_OF_33), *((family, UPDETR, {}) for family in ONE_STAGE)]
NAMES = [f"{family}{'-33' * bool(options)}-{pretext['type']}" for family, pretext, options in RUNS]
# Tensors of the stock detector that no pretraining knows: of two decoder layers, and of DINO's encoder. The branch that
# scores a Deformable DETR's proposals is known: its first row is.
BRANCHES = [f"bbox_head.cls_branches.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")]
NEW = {
    **{family: ["bbox_head.fc_cls.weight", "bbox_head.fc_cls.bias"] for family in ("detr", "conditional", "dab")},
    "deformable": BRANCHES[:4],
    "two_stage": BRANCHES[:4],
    "dino": [*BRANCHES, "dn_query_generator.label_embedding.weight"],
}


def _samples(sizes: list[tuple[int, int]], labels: list[int]) -> list[DetDataSample]:
    """Images of 64 pixels, what lies past their sizes being padding, with one box each."""
    samples = []
    for (height, width), label in zip(sizes, labels):
        shapes = dict(img_shape=(height, width), batch_input_shape=(64, 64), pad_shape=(64, 64))
        sample = DetDataSample(metainfo=shapes)
        box = torch.tensor([[8.0, 8.0, width - 8.0, height - 20.0]])
        sample.gt_instances = InstanceData(bboxes=box, labels=torch.tensor([label]))
        samples.append(sample)
    return samples


def _states(detector: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What the decoder of a detector makes of images, one of them padded, in evaluation: (layers, N, Q, C)."""
    detector.eval()
    with torch.no_grad():
        maps = detector.extract_feat(images)
        samples = _samples([(64, 64), (64, 40)], [0, 0])
        return detector.forward_transformer(maps, samples)["hidden_states"]


def export_dino(model: DetectorPretraining, out: Path) -> dict:
    """Export a pretraining. Returns what the file says of the detector."""
    model.data_preprocessor = MODELS.build(dict(type="RegionPreprocessor"))
    export_detector(dict(state_dict=model.state_dict(), meta=dict(densessl=model.describe())), out)
    return torch.load(out.with_suffix(".pth"), weights_only=True)["meta"]["detector"]


@pytest.mark.parametrize(("family", "pretext", "options"), RUNS, ids=NAMES)
def test_pretrained_exported_loaded_and_fine_tuned(tmp_path, family, pretext, options):
    assert sys.modules["mmcv._ext"].__file__.endswith("densessl/compat/extension.py"), "no compiled operators"
    model = small(family, pretext, **options)
    model.data_preprocessor = MODELS.build(dict(type="RegionPreprocessor"))
    begun = {key: value.clone() for key, value in model.detector.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3)
    for seed in range(2):
        total, _ = model.parse_losses(model.loss(random_batch([3, 3], seed)))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    trained = model.detector.state_dict()
    moved = {key for key, value in trained.items() if not torch.equal(value, begun[key])}
    assert {key.partition(".")[0] for key in moved} >= {"neck", "encoder", "decoder", "bbox_head"}

    export_detector(dict(state_dict=model.state_dict(), meta=dict(densessl=model.describe())), tmp_path / "det")
    torch.manual_seed(1)
    stock = build_detector(str(tmp_path / "det.py"))
    untouched = {key: value.clone() for key, value in stock.state_dict().items()}
    report = load_detector(stock, tmp_path / "det.pth")
    assert report.loaded == report.expected == len(untouched) - len(NEW[family])
    assert sum(report.new.values()) == len(NEW[family]) and str(report) == report.summary
    for key, value in stock.state_dict().items():
        if key in NEW[family]:
            assert torch.equal(value, untouched[key]) and value.shape[0] in (80, 81), key
        elif family == "two_stage" and key in BRANCHES:
            assert torch.equal(value, torch.cat([trained[key], untouched[key][1:]])), key
        else:
            assert torch.equal(value, trained[key]), key
    assert stock.bbox_head.num_classes == 80 and isinstance(stock, DINO33) == bool(options)

    if family == "dino":  # whose queries are the proposals that the class branches prefer
        for ours, theirs in zip(stock.bbox_head.cls_branches, model.detector.bbox_head.cls_branches):
            ours.weight.data[:], ours.bias.data[:] = theirs.weight.data, theirs.bias.data
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    before, after = _states(model.detector, images), _states(stock, images)
    assert before.std() > 0.1 and torch.equal(before, after)

    stock.train()
    parameters = {key: value for key, value in stock.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(parameters.values(), 1e-2)
    total, _ = stock.parse_losses(stock.loss(images, _samples([(64, 64), (64, 40)], [5, 79])))
    total.backward()
    optimizer.step()
    assert total.isfinite() and all(value.grad is None or value.grad.isfinite().all() for value in parameters.values())
    learnt = [key for key in NEW[family] if "cls" in key]
    assert all(parameters[key].grad.any() for key in learnt if key in parameters)


@pytest.mark.parametrize(("options", "shapes"), [({}, STOCK_SHAPES), (SHAPES_OF_33, "mmdet-3.3")], ids=["stock", "33"])
def test_an_exported_dino_says_whose_shapes_it_has(tmp_path, options, shapes):
    model = small("dino", DETREG, **options)
    told = export_dino(model, tmp_path / "det")
    assert (told["shapes"], told["type"]) == (shapes, "DINO")
    assert model.detector.decoder.ref_point_head.layers[0].in_features == WIDTHS[shapes]
    assert ('type="densessl.DINO33"' in (tmp_path / "det.py").read_text()) == bool(options)


@pytest.mark.parametrize(("found", "expected"), [("onedl-3.5.1", "mmdet-3.3"), ("mmdet-3.3", "onedl-3.5.1")])
def test_dinos_of_two_distributions_do_not_take_each_others_weights(tmp_path, found, expected):
    """Only one of the two distributions is installed, so the other's layer is put into the file, or the detector."""
    from mmdet.models.layers.transformer.utils import MLP  # once densessl stands in for mmcv's operators

    export_dino(small("dino", DETREG, **SHAPES_OF_33), tmp_path / "det")
    content = torch.load(tmp_path / "det.pth", weights_only=True)
    content["state_dict"]["decoder.ref_point_head.layers.0.weight"] = torch.zeros(256, WIDTHS[expected])
    content["meta"]["detector"]["shapes"] = expected
    torch.save(content, tmp_path / "det.pth")
    detector = build_detector(str(tmp_path / "det.py"))
    detector.decoder.ref_point_head = MLP(WIDTHS[found], 256, 256, 2)
    told = rf"shapes: found {found}, expected {expected}: its decoder\.ref_point_head\.layers\.0"
    with pytest.raises(LoadError, match=told) as caught:
        load_detector(detector, tmp_path / "det.pth")
    assert "DINO33" in str(caught.value)


def test_dino33_encodes_reference_boxes_as_the_official_code():
    """Sines and cosines of 64 frequencies a coordinate, in the order y, x, w, h, by the formula."""
    from mmdet.models.layers.transformer.utils import (
        coordinate_to_encoding,
    )  # once densessl stands in for mmcv's operators

    generator = torch.Generator().manual_seed(0)
    boxes, head = torch.rand(1, 5, 4, generator=generator), RefPointHead(256)
    frequency = 2 * torch.pi / 10000 ** (torch.arange(64, dtype=torch.float64) / 64)
    angles = boxes[..., [1, 0, 2, 3], None].double() * frequency
    wanted = torch.stack([angles.sin(), angles.cos()], -1).flatten(2)
    first = head.layers[0]
    seen = []
    first.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    wide, narrow = head(coordinate_to_encoding(boxes, 256)), head(coordinate_to_encoding(boxes, 128))
    assert first.weight.shape == (256, 512) and torch.equal(wide, narrow)
    assert (seen[0].double() - wanted).abs().max() < 1e-5
    assert list(head.state_dict()) == [f"layers.{i}.{kind}" for i in range(2) for kind in ("weight", "bias")]
