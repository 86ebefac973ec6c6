"""No alarm is false: every shipped config passes, and so do stock ones."""

import pytest

from densessl.settings import check_config
from tests.settings.run_of import CONFIGS, run_of

SHIPPED = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
BACKBONES = [name for name in SHIPPED if not name.startswith("transfer") and "detr" not in name]
DETECTORS = [name for name in SHIPPED if not name.startswith("transfer") and "detr" in name]
STOCK = [
    "mmdet::detr/detr_r50_8xb2-150e_coco",
    "mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco",
    "mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco",
    "mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco",
    "mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco",
    "mmdet::dino/dino-4scale_r50_8xb2-12e_coco",
    "mmdet::dino/dino-5scale_swin-l_8xb2-12e_coco",
    "mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco",
    "mmdet::grounding_dino/grounding_dino_swin-t_finetune_16xb2_1x_coco",
    "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco",
    "mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco",
    "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco",
    "mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco",
    "mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco",
    "mmdet::queryinst/queryinst_r50_fpn_1x_coco",
    "mmdet::htc/htc_r50_fpn_1x_coco",
    "mmdet::retinanet/retinanet_r50_fpn_1x_coco",
    "mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco",
    "mmdet::atss/atss_r50_fpn_1x_coco",
    "mmdet::gfl/gfl_r50_fpn_1x_coco",
    "mmdet::vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco",
    "mmdet::tood/tood_r50_fpn_1x_coco",
    "mmdet::yolox/yolox_s_8xb8-300e_coco",
    "mmdet::rtmdet/rtmdet_s_8xb32-300e_coco",
    "mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco",
    "mmdet::albu_example/mask-rcnn_r50_fpn_albu-1x_coco",
    "mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712",
    "mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco",
    "mmdet::solov2/solov2_r50_fpn_1x_coco",
    "mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco",
    "mmdet::detectors/detectors_htc-r50_1x_coco",
    "mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco",
    "mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769",
    "mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512",
    "mmseg::maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512",
    "mmseg::bisenetv2/bisenetv2_fcn_4xb4-amp-160k_cityscapes-1024x1024",
]


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("demo", [False, True], ids=["whole", "demo"])
def test_pretraining_configs_have_no_problem(name, demo):
    assert check_config(run_of(name, demo=demo)) == []


@pytest.mark.det
@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("demo", [False, True], ids=["whole", "demo"])
def test_pretraining_configs_of_detectors_have_no_problem(name, demo):
    assert check_config(run_of(name, demo=demo)) == []


@pytest.mark.det
@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("transfer")])
def test_configs_of_protocols_have_no_problem(name):
    assert check_config(run_of(name)) == []


@pytest.mark.det
@pytest.mark.parametrize("name", STOCK)
def test_stock_configs_have_no_problem(name):
    assert check_config(run_of(name)) == []


@pytest.mark.det
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("v3det/fcos_swinb_fpn_8x4_sample1e-3_mstrain_v3det_2x", "model.neck.force_grad_on_level: unknown (valid for"),
        ("solov2/solov2-light_r18_fpn_ms-3x_coco", "train_cfg.by_epoch: leave it out"),
        (
            "reid/reid_r50_8xb32-6e_mot15train80_test-mot15val20",
            "model.backbone.type: 'mmpretrain.ResNet' needs the",
        ),
    ],
)
def test_stock_configs_that_mmdet_cannot_run_are_told(name, line):
    assert check_config(run_of(f"mmdet::{name}"))[0].startswith(line)
