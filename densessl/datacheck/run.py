"""Check data sets: read every image, add up what is known, and compare the sizes that labels state."""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from densessl.budget import allowed
from densessl.data.decode import Reading
from densessl.datacheck.scan import Images, scan
from densessl.datacheck.sets import ImageSet
from densessl.datacheck.summary import Summary, Tally


class Checked(NamedTuple):
    """Data sets that were checked.

    Attributes:
        sets: data sets.
        images: all their images.
        summary: what was found.
    """

    sets: Sequence[ImageSet]
    images: Images
    summary: Summary


def images_of_sets(sets: Sequence[ImageSet]) -> Images:
    """The images of data sets, numbered on from one set to the next."""
    return Images([each.listed.root for each in sets], [each.listed.paths for each in sets])


def check(
    sets: Sequence[ImageSet],
    budget: str | int,
    processes: int = 1,
    advance: Callable[[int], None] = lambda number: None,
) -> Checked:
    """Read every image of data sets once.

    Args:
        budget: how many images of each set may be unreadable, see :func:`densessl.budget.allowed`.
        processes, advance: see :func:`densessl.datacheck.scan.scan`.

    Raises:
        SettingError: ``budget`` is none.
    """
    allowed(budget, 1)  # before anything is read
    images = images_of_sets(sets)
    tally = Tally(images)
    reading = Reading(max((each.megapixels for each in sets), default=Reading().megapixels))
    facts = scan(images.files(), reading, processes, advance)
    for each in sets:
        for index in range(len(each.listed.paths)):
            fact = next(facts)
            tally.add(os.path.join(each.listed.root, each.listed.paths[index]), fact)
            stated = each.stated_size(index)
            if stated and each.report and not fact.reason and stated != (fact.width, fact.height):
                each.report.other_sizes += 1
                each.report.other_sizes_first = each.report.other_sizes_first or each.listed.paths[index]
    others = [each.listed.others for each in sets]
    reports = [each.report for each in sets]
    return Checked(sets, images, tally.summary([each.name for each in sets], budget, others, reports))
