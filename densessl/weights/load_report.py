"""The load report: what a load did, in one line and in detail."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from densessl.weights.fingerprint import Difference

SHOWN = 8  # names of each kind that the details list


@dataclass
class LoadReport:
    """Result of loading weights. Tensors are parameters and buffers alike.

    Attributes:
        source: Name of the file.
        part: ``"backbone"``, ``"neck"``, a head by its name in the model (``"bbox_head"``), or the whole ``"model"``.
        expected: Number of tensors of that part of the model that the file must have: for a head, those of its shared
            convolutions; for a neck, those of the levels that the file has.
        loaded: Number of expected tensors that the file has with the same shape.
        missing: Names of expected tensors that the file lacks.
        mismatched: Expected tensors with another shape in the file, as ``"name: found (…), expected (…)"``.
        unexpected: Names of tensors of the file that the model lacks.
        unused: Names of tensors of the file that the model ignores by design, not counted as unexpected: the class
            token and the final norm of a ViT, batch counters, and stages that the model does not have at all.
        new: Number of tensors that keep their initial values, by module. A backbone's report counts every other part of
            the model and a ViT's relative positions; a neck's or head's report, its tensors that are not expected.
        differences: Fields in which the fingerprints differ.
        unverified: Fields of the fingerprint that the file or the model does not determine.
        applied: Whether the model has the tensors now; False in the report of a :class:`LoadError`.
        skipped: Why the part was not loaded: the model has no such part, or one of another type. Empty if it was.
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
        """One line for each kind of problem."""
        names = {"missing": self.missing, "of another shape": self.mismatched, "unexpected": self.unexpected}
        lines = [f"{kind} ({len(some)}): {_listed(some)}" for kind, some in names.items() if some]
        lines += [f"fingerprint differs in {difference}" for difference in self.differences]
        if self.unverified:
            lines.append(f"not verified, since the file or the model does not state them: {', '.join(self.unverified)}")
        return lines

    def __str__(self) -> str:
        return "\n  ".join([self.summary, *self.details()])


def mismatches(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the tensors of a file that a model has in another shape: by name, the report's line about each."""
    return {
        name: f"{name}: found {tuple(tensor.shape)}, expected {tuple(own[name].shape)}"
        for name, tensor in given.items()
        if name in own and own[name].shape != tensor.shape
    }


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
