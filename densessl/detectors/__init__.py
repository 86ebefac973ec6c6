"""Pretraining of whole detectors: any DETR of MMDetection with a pretext task. Importing this package imports mmdet."""

from densessl.detectors.detreg import DETReg
from densessl.detectors.dino import DINO33
from densessl.detectors.pair import PairDETR, PairDETRHead
from densessl.detectors.pretext import Pretext
from densessl.detectors.pretraining import DetectorPretraining
from densessl.detectors.updetr import UPDETR

__all__ = ["DINO33", "UPDETR", "DETReg", "DetectorPretraining", "PairDETR", "PairDETRHead", "Pretext"]
