"""What a load did, in one line and in detail."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from densessl.weights.fingerprint import Difference

SHOWN = 8  # names of each kind that the details list


@dataclass
class LoadReport:
    """Counts of tensors: parameters and buffers alike.

    Attributes:
        source: The file.
        part: What was loaded: ``"backbone"``, ``"neck"``, a head by its name in the model (``"bbox_head"``), or the
            whole ``"model"``.
        expected: Tensors of that part of the model that the file has to have. Of a head those of its shared
            convolutions; of a neck not those of levels that the file's has not.
        loaded: Those the file has with the same shape.
        missing: Those the file lacks.
        mismatched: Those the file has in another shape, as ``"name: found (…), expected (…)"``.
        unexpected: Tensors of the file that the model lacks.
        unused: Of those, the ones that it does without by design, and which are not counted as unexpected: the class
            token and the final norm of a ViT, counters of batches, and stages of which it has none.
        new: How many tensors stay as they were initialised, by module: of a backbone's report for every other part of
            the model and a ViT's relative positions, of a neck or head for what is not expected.
        differences: Fields in which the fingerprints disagree; empty unless the caller allowed it.
        unverified: Fields of the fingerprint that the file or the model does not tell.
        applied: Whether the model has the tensors now. It does not where :class:`LoadError` brought this report.
        skipped: Why the file's part was not looked at further: the model has no such part, or another kind of it.
    """

    source: str
    part: str
    expected: int
    loaded: int
    missing: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    new: dict[str, int] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    applied: bool = False
    skipped: str = ""

    @property
    def coverage(self) -> float:
        """Loaded over expected, 0 to 1."""
        return self.loaded / self.expected if self.expected else 0.0

    @property
    def summary(self) -> str:
        """One line, such as ``318/318 backbone tensors loaded; 0 unexpected; neck: 16 new; bbox_head: 20 new``."""
        if self.skipped:
            return f"{self.part}: none loaded; {self.skipped}"
        verb = "loaded" if self.applied else "fit, none loaded"
        words = [f"{self.loaded}/{self.expected} {self.part} tensors {verb}", f"{len(self.unexpected)} unexpected"]
        words += [f"not used: {_listed(self.unused)}"] if self.unused else []
        return "; ".join(words + [f"{part}: {count} new" for part, count in self.new.items()])

    def details(self) -> list[str]:
        """A line for each kind of trouble; none when there is none."""
        names = {"missing": self.missing, "of another shape": self.mismatched, "unexpected": self.unexpected}
        lines = [f"{kind} ({len(all_)}): {_listed(all_)}" for kind, all_ in names.items() if all_]
        lines += [f"fingerprint differs in {difference}" for difference in self.differences]
        if self.unverified:
            lines.append(f"not verified, since the file or the model does not tell: {', '.join(self.unverified)}")
        return lines

    def __str__(self) -> str:
        return "\n  ".join([self.summary, *self.details()])


def mismatches(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, str]:
    """Tensors of a file that a model has in another shape: by name, what a report says of each."""
    return {
        name: f"{name}: found {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in given.items()
        if name in own and own[name].shape != tensor.shape
    }


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
