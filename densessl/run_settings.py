"""The settings of one run, from the command line, a notebook or a comparison."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

from densessl.budget import allowed
from densessl.errors import SettingError

OWN_DATA = ("train_json", "val_json", "images", "val_images", "voc_root", "yolo_root")
PATHS = ("config", "data_root", "work_dir", "resume", "init", "regions", *OWN_DATA)
LAUNCHERS = ("none", "pytorch", "slurm")
LARGEST_SEED = 2**32 - 1  # of numpy's generators


@dataclass(frozen=True)
class RunSettings:
    """The settings of one run: a config, and what the user changes in it.

    Attributes:
        config: a file, or the name of a shipped config (``pixpro_r18``, ``transfer/coco/mask-rcnn_r50_fpn_1x``) or of a
            stock one (``mmdet::retinanet/retinanet_r50_fpn_1x_coco``).
        data_root: folder of images, archive, list file or COCO json to pretrain on, or a list of several; for a
            detector's config, its ``data_root``.
        demo: a short run on built-in pictures.
        work_dir: folder for logs and checkpoints; by default ``work_dirs/<name of the config>``.
        resume: True continues from the last checkpoint of the work folder; a path, from that file.
        init: file with the weights to start from; ``"none"`` for random weights; None for what the config says.
        seed: seed of all random numbers of the run; None for the config's.
        batch_size: images per process and iteration; ``"auto"``: the config's, or fewer if there are too few images.
        epochs: epochs of a pretraining; ``"auto"`` derives them from the number of images.
        regions: region store to pretrain on.
        bad_images: how many images may be unreadable before the run stops with exit code 3: a share of the data set
            (``"0.1%"``, at least one), a number, or ``"none"``; None for the config's.
        labels, labels_seed: part of a detector's train set (``"10%"``, ``"30-shot"``), and which part of that size.
        train_json, val_json: a detector's train and validation set, in COCO's format, instead of the config's.
        images, val_images: their folders of images; by default the folder of each json, and ``images`` for both.
        voc_root, yolo_root: folder of a detector's data in Pascal VOC's or YOLO's layout, instead of the config's.
        classes: a detector's classes, as a sequence or as text with commas (``"fox,owl"``); None for those of the
            train set or the config.
        boxes_as_masks: objects without a mask get their box as mask, for detectors that need masks.
        steps, evaluations: length of a detector's training in optimiser steps, and number of evaluations.
        launcher: launcher that started the processes.
        options: entries of the config by dotted name; they override the other settings.

    Raises:
        SettingError: a number is out of range, or a value is of another type.
    """

    config: str
    data_root: str | Sequence[str] | None = None
    demo: bool = False
    work_dir: str | None = None
    resume: bool | str = False
    init: str | None = None
    seed: int | None = None
    batch_size: int | Literal["auto"] | None = None
    epochs: int | Literal["auto"] | None = None
    regions: str | None = None
    bad_images: str | int | None = None
    labels: str | None = None
    labels_seed: int | None = None
    train_json: str | None = None
    val_json: str | None = None
    images: str | None = None
    val_images: str | None = None
    voc_root: str | None = None
    yolo_root: str | None = None
    classes: Sequence[str] | str | None = None
    boxes_as_masks: bool = False
    steps: int | None = None
    evaluations: int | None = None
    launcher: Literal[LAUNCHERS] = "none"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in PATHS:
            if isinstance(getattr(self, name), os.PathLike):
                object.__setattr__(self, name, os.fspath(getattr(self, name)))
        roots = self.data_root
        if isinstance(roots, list | tuple):
            roots = [os.fspath(root) if isinstance(root, os.PathLike) else root for root in roots]
            object.__setattr__(self, "data_root", roots[0] if len(roots) == 1 else tuple(roots))
        if self.bad_images is not None:
            allowed(self.bad_images, 1)
        wrong = [
            *self._wrong_numbers(),
            *(
                f"{name}: found {value!r}, expected a path{' or None' if name != 'config' else ''}"
                for name in PATHS
                if not isinstance(value := getattr(self, name), str)
                and not (value is None and name != "config")
                and not (isinstance(value, bool) and name == "resume")
                and not (name == "data_root" and isinstance(value, tuple) and all(isinstance(r, str) for r in value))
            ),
        ]
        if self.launcher not in LAUNCHERS:
            wrong.append(f"launcher: found {self.launcher!r}, expected one of {', '.join(LAUNCHERS)}")
        if not isinstance(self.labels, str | None):
            wrong.append(f"labels: found {self.labels!r}, expected a part such as '10%' or None")
        if self.resume == "":
            wrong.append("resume: found '', expected True, False or the path of a checkpoint")
        if not isinstance(self.demo, bool):
            wrong.append(f"demo: found {self.demo!r}, expected True or False")
        wrong += self._wrong_classes()
        if not isinstance(self.options, Mapping) or not all(isinstance(name, str) for name in self.options):
            wrong.append(f"options: found {self.options!r:.80}, expected a dict of values by dotted name")
        if wrong:
            raise SettingError("\n".join(wrong))

    def _wrong_classes(self) -> list[str]:
        """Turn text with commas into a tuple of names, and return what is wrong with them."""
        names = self.classes.split(",") if isinstance(self.classes, str) else self.classes
        if names is None:
            return []
        if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
            return [f"--classes: found {names!r:.80}, expected names"]
        names = tuple(name.strip() for name in names)
        object.__setattr__(self, "classes", names)
        twice = sorted({name for name in names if names.count(name) > 1})
        if not names or not all(names):
            return [f"--classes: found {','.join(names)!r}, expected names separated by commas"]
        return [f"--classes: found {', '.join(map(repr, twice))} more than once"] if twice else []

    def _wrong_numbers(self) -> list[str]:
        """Turn numpy's whole numbers into Python's, and return what is wrong with the numbers."""
        wrong = []
        for name, least, more in (
            ("seed", 0, ""),
            ("batch_size", 1, " or 'auto'"),
            ("epochs", 1, " or 'auto'"),
            ("labels_seed", 0, ""),
            ("steps", 1, ""),
            ("evaluations", 1, ""),
        ):
            value = getattr(self, name)
            if isinstance(value, Integral) and not isinstance(value, bool):
                object.__setattr__(self, name, int(value))
            elif value is None or (more and isinstance(value, str) and value == "auto"):
                continue
            most = LARGEST_SEED if name == "seed" else None
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not whole or value < least or (most and value > most):
                limits = f"at least {least}" + (f" and at most {most}" if most and whole and value > least else "")
                option = name.replace("_", "-")
                wrong.append(f"--{option}: found {value!r}, expected a whole number of {limits}{more}")
        return wrong
