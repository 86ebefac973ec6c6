"""The sections of a report: what the text on the terminal and the HTML file both show, the most important first."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from densessl.datacheck.duplicates import NEAR
from densessl.datacheck.labels import LabelReport
from densessl.datacheck.summary import MEGAPIXELS, SetSummary, Summary
from densessl.extras import how_to_install
from densessl.wording import count


class Section(NamedTuple):
    """A part of a report.

    Attributes:
        title: its heading.
        lines: sentences.
        header, rows: a table; without rows there is none.
    """

    title: str
    lines: list[str]
    header: tuple[str, ...] = ()
    rows: Sequence[tuple] = ()


def verdict(summary: Summary, budget: str) -> list[str]:
    """The result in a line for each data set.

    Args:
        budget: ``--bad-images``.
    """
    lines = []
    for each in summary.sets:
        good = each.images - each.unreadable
        said = f"{each.name}: {good:,} of {count(each.images, 'image')} can be read"
        if each.unreadable > each.budget:
            said += (
                f"; {each.unreadable:,} cannot, more than the {each.budget:,} that --bad-images {budget} allows: "
                "training would stop"
            )
        elif each.unreadable:
            said += f"; {each.unreadable:,} cannot, and training replaces up to {each.budget:,} (--bad-images {budget})"
        lines.append(said)
    return lines


def sections(summary: Summary) -> list[Section]:
    """All sections that have something to say, the most important first."""
    found = [
        _unreadable(summary),
        *(part for each in summary.sets if each.labels for part in _labels(each.name, each.labels)),
        _duplicates(summary),
        _depth(summary),
        _kinds(summary),
        _sizes(summary),
        *(_others(each) for each in summary.sets),
    ]
    return [each for each in found if each.lines or each.rows]


def _unreadable(summary: Summary) -> Section:
    number = sum(each.unreadable for each in summary.sets)
    lines = []
    if number > len(summary.unreadable):
        lines.append(f"The first {len(summary.unreadable):,} of {number:,} are listed.")
    return Section("Images that cannot be read", lines, ("file", "reason"), summary.unreadable)


def _labels(name: str, labels: LabelReport) -> Iterator[Section]:
    used = sum(each.used for each in labels.classes)
    labelled = sum(each.labelled for each in labels.classes)
    lines = [
        f"{labels.source}: {count(labels.images, 'image')}, {labels.without_boxes:,} of them without an object; "
        f"{used:,} of {count(labelled, 'object')} are used."
    ]
    lines += [f"Training leaves out {count(n, 'image')} {why}." for why, n in labels.dropped_images.items()]
    if labels.other_sizes:
        lines.append(
            f"{count(labels.other_sizes, 'image')} of another size than the labels state (first: "
            f"{labels.other_sizes_first}): are their boxes those of another version of the images?"
        )
    rows = [(each.name, each.labelled, each.used, each.ignored, each.dropped) for each in labels.classes]
    yield Section(f"Labels of {name}", lines, ("class", "in the file", "used", "ignored", "dropped"), rows)
    changes = [("left out", reason, n) for reason, n in labels.left_out.most_common()]
    changes += [("mended", reason, n) for reason, n in labels.mended.most_common()]
    yield Section(
        f"Labels of {name} that are left out or mended",
        [],
        ("what", "why", "objects", "first image"),
        [(what, reason, n, labels.first.get(reason, "")) for what, reason, n in changes],
    )


def _duplicates(summary: Summary) -> Section:
    lines, rows = [], []
    if summary.exact_groups:
        lines.append(
            f"{count(summary.copies, 'image is an exact copy', 'images are exact copies')} of another one "
            "(--drop-duplicates leaves them out of the clean list)."
        )
    if summary.near_groups:
        lines.append(
            f"{count(summary.near_groups, 'group')} of images look the same: their hashes (pHash) differ in at most "
            f"{NEAR} of 64 bits. Look at them before you drop any."
        )
    if summary.across:
        lines.append(
            f"{count(summary.across, 'group spans', 'groups span')} several data sets: what is validated on was "
            "trained on."
        )
    if not summary.hashed and any(summary.good):
        lines.append(f"Near duplicates were not looked for; to find them: {how_to_install('check')}.")
    for kind, groups in (("exact", summary.exact), ("near", summary.near)):
        rows += [(kind, len(group), group[0], group[1]) for group in groups]
    return Section("Duplicates", lines, ("kind", "images", "first", "second"), rows)


def _depth(summary: Summary) -> Section:
    if not summary.deep:
        return Section("Depth", [])
    said = f"{count(summary.deep, 'image has', 'images have')} more than 8 bits"
    if summary.high is not None:
        said += f", with samples from {summary.low:g} to {summary.high:g}"
    return Section(
        "Depth",
        [f"{said}. Training stretches them to 8 bits; dataset.depth_range sets the range, see docs/data.md."],
    )


def _kinds(summary: Summary) -> Section:
    rows = sorted(((f, m, b, n) for (f, m, b), n in summary.kinds.items()), key=lambda row: (-row[3], row[:3]))
    return Section("Formats", [], ("format", "mode", "bits", "images"), rows)


def _sizes(summary: Summary) -> Section:
    if not summary.smallest:
        return Section("Sizes", [])
    (small, *_), (large, *_) = summary.smallest, summary.largest
    named = [
        f"{word}: {each.width} x {each.height} ({each.file})."
        for word, each in (("Smallest", small), ("Largest", large))
    ]
    ends = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(MEGAPIXELS)] + [f"from {MEGAPIXELS[-1]}"]
    most = max(summary.histogram)
    rows = [
        (end, number, "#" * max(1, round(30 * number / most))) for end, number in zip(ends, summary.histogram) if number
    ]
    return Section(
        "Sizes", [*named, f"The files have {summary.bytes / 1e6:,.1f} MB."], ("megapixels", "images", ""), rows
    )


def _others(each: SetSummary) -> Section:
    rows = [(suffix or "none", number) for suffix, number in each.others.items()]
    return Section("Files passed over, which are no images", [], ("suffix", "files"), rows)
