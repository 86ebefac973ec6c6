"""Choose a part of a train set's labels reproducibly.

    10%         a tenth of the images with all their labels: floor(share * images), at least one, as the published
                fractions of COCO (Sohn et al., arXiv 2005.04757; MMDetection's tools/misc/split_coco.py)
    100-images  that many images. Those without objects are trained on, too, if the detector can; for a share, the
                config's filter decides
    30-shot     that many boxes of every class. As in few-shot detection (TFA, Wang et al., arXiv 2003.06957), all other
                boxes of a chosen image are unlabelled: they count as background

Images are ranked by a hash of the seed and their name, and the first ones are taken. For one seed, a smaller part is
therefore a subset of every larger one, and neither the order in the file, nor the platform, nor a library's random
numbers matter. For shots, each class has its own ranking, and the boxes of an image are ranked by a hash of their
coordinates. Unlike TFA's sampling, this does not skip images with many boxes, and trains once on an image with several
chosen boxes, with all of them. Crowds and boxes marked difficult, which MMDetection does not train on, are never chosen
and are removed.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from densessl.errors import SettingError
from densessl.finetune.config.annotations import Box, digest, put, read_labels, settings_digest
from densessl.finetune.config.counts import count_train_set, lines_of
from densessl.finetune.config.data_files import Leaf, leaves
from densessl.finetune.config.empty_images import keep_empty_images
from densessl.wording import count, suggestion

FORMS = {"%": r"(\d+(?:\.\d+)?)%", "-shot": r"(\d+)-shot", "-images": r"(\d+)-images"}

Image = tuple[int, str]  # number of its annotation file, and its name there


class Spec(NamedTuple):
    """The size of a part; ``form`` is one of ``FORMS``. The amount of a share is a percentage, up to 100."""

    form: str
    amount: Fraction

    def __str__(self) -> str:
        return f"{float(self.amount):g}{self.form}"


def parse_labels(text: str) -> Spec:
    """Parse ``"10%"``, ``"30-shot"`` or ``"100-images"``.

    Raises:
        SettingError: The form is unknown, or the amount out of range; the message names the nearest valid text.
    """
    for form, pattern in FORMS.items():
        match = re.fullmatch(pattern, text)
        if match and 0 < Fraction(match[1]) <= (100 if form == "%" else math.inf):
            return Spec(form, Fraction(match[1]))
    number = (re.findall(r"\d+(?:\.\d+)?", text) or ["10"])[0]
    share, whole = float(number) if 0 < float(number) <= 100 else 100, max(1, int(float(number)))
    raise SettingError(
        f"--labels: found {text!r}, expected a share, shots or images; "
        + suggestion(text, [f"{share:g}%", f"{whole}-shot", f"{whole}-images"])
    )


def set_labels(cfg: Config, text: str, seed: int, folder: str | Path) -> list[str]:
    """Restrict the train set of ``cfg`` to a part of its labels, in place.

    ``folder`` receives an annotation file of the part for each one of the train set, and ``SPEC-seedSEED.json`` with
    their names and SHA-256, the specification, the seed, and the numbers of images and of boxes of each class. For
    several data sets, such as VOC07+12, the part is taken from the union.

    Returns:
        Lines for the log.

    Raises:
        SettingError: ``text`` is invalid, there are too few images, the train set's labels are not in one file, or it
            has no boxes to count shots of.
    """
    spec, folder = parse_labels(text), Path(folder).absolute()
    groups: dict[Path, list[Leaf]] = {}
    for leaf in leaves(cfg, "train_dataloader"):
        groups.setdefault(leaf.path(leaf.cfg.get("ann_file") or ""), []).append(leaf)
    files = [read_labels(group[0]) for group in groups.values()]
    if spec.form == "-shot" and not all(file.classes for file in files):
        raise SettingError(f"--labels: found {spec}, but {files[0].source} lists no boxes; say N% or N-images")
    chosen = choose(spec, seed, [file.images for file in files])
    tail, records = f"{str(spec).replace('%', 'percent')}-seed{seed}", []
    for number, (file, group) in enumerate(zip(files, groups.values())):
        part = {name: stays for (owner, name), stays in chosen.items() if owner == number}
        twin = f"_{number}" if [other.stem for other in files].count(file.stem) > 1 else ""
        settings = file.write(part, folder / f"{file.stem}{twin}.{tail}")
        for leaf in group:
            leaf.cfg.update(settings)
        records.append(
            dict(
                source=file.source,
                source_sha256=digest(file.content),
                images=len(part),
                files={key: Path(path).name for key, path in settings.items()},
                sha256=settings_digest(settings),
            )
        )
    kept = keep_empty_images(cfg) if spec.form == "-images" else None
    counts = count_train_set(cfg)
    boxes = dict(counts.boxes) if counts else {}
    of = sum(len(file.images) for file in files)
    facts = dict(labels=str(spec), seed=seed, images=len(chosen), of=of, boxes=boxes, parts=records)
    put(folder / f"{tail}.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    lines = [f"--labels {spec}, seed {seed}: {len(chosen):,} of {count(of, 'image')}; {folder / f'{tail}.json'}"]
    lines += [f"--labels: {kept}"] if kept else []
    lines += lines_of(counts, "--labels") if counts else []
    few = [name for name, some in boxes.items() if spec.form == "-shot" and 0 < some < spec.amount]
    return lines + ([f"--labels: classes with fewer than {spec.amount}: {', '.join(few)}"] if few else [])


def rank(images: Iterable[Image], seed: int, name: str = "") -> list[Image]:
    """Sort images by the SHA-256 of ``SEED|NAME|IMAGE``; images of equal names by their files."""
    return sorted(images, key=lambda image: (_hash(seed, name, image[1]), image))


def choose(spec: Spec, seed: int, files: Sequence[Mapping[str, Sequence[Box]]]) -> dict[Image, set[int] | None]:
    """Choose the images of a part, in order, with the indices of the boxes to keep; None keeps all labels. If a class
    has fewer boxes than shots, all are kept.

    Args:
        files: Boxes by image for each annotation file, see
            :class:`densessl.finetune.config.annotations.LabelFile`.

    Raises:
        SettingError: There are fewer images than requested.
    """
    order = rank(((number, name) for number, file in enumerate(files) for name in file), seed)
    if spec.form == "-shot":
        shots: dict[Image, set[int]] = {}
        for name, owners in _by_class(files).items():
            for image, box in _in_order(name, owners, seed)[: int(spec.amount)]:
                shots.setdefault(image, set()).add(box.index)
        return {image: shots[image] for image in order if image in shots}
    number = max(1, math.floor(len(order) * spec.amount / 100)) if spec.form == "%" else int(spec.amount)
    if number > len(order):
        raise SettingError(f"--labels: found {spec}, expected at most {len(order)}-images, the whole train set")
    return dict.fromkeys(order[:number])


def _by_class(files: Sequence[Mapping[str, Sequence[Box]]]) -> dict[str, dict[Image, list[Box]]]:
    """Group boxes by class and image."""
    groups: dict[str, dict[Image, list[Box]]] = {}
    for number, file in enumerate(files):
        for image, boxes in file.items():
            for box in boxes:
                groups.setdefault(box.name, {}).setdefault((number, image), []).append(box)
    return groups


def _in_order(name: str, owners: Mapping[Image, Sequence[Box]], seed: int) -> list[tuple[Image, Box]]:
    """Return the boxes of a class in the order in which they are chosen as shots."""

    def key(box: Box) -> tuple[bytes, int]:
        return _hash(seed, name, box.identity), box.index

    return [(image, box) for image in rank(owners, seed, name) for box in sorted(owners[image], key=key)]


def _hash(*parts: object) -> bytes:
    return hashlib.sha256("|".join(map(str, parts)).encode()).digest()
