"""One golden case: the arrays an official implementation read and produced, and the comparisons they allow."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch


class Case:
    """Arrays of ``family__case.npz``.

    ``case["q"]`` is a tensor, ``case.hp("p")`` the scalar ``hp_p`` as a Python number. The compare methods take the
    name of the expected array and the value computed here; tolerances are those stated with the arrays.

    Attributes:
        unread: the arrays, settings aside, whose values the adaptor has not asked for yet. At the end none may be left:
            what a file has is an input, or compared.
    """

    def __init__(self, path: Path):
        self.family, self.name = path.stem.split("__", 1)
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.unread = {name for name in self.arrays if not name.startswith("hp_")}

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> torch.Tensor:
        self.unread.discard(name)
        return torch.from_numpy(np.array(self.arrays[name]))

    def hp(self, name: str):
        return self[f"hp_{name}"].item()

    def group(self, prefix: str) -> Mapping[str, torch.Tensor]:
        """All arrays whose name starts with ``prefix``, without it."""
        return Group(self, prefix)

    def informative(self, *names: str) -> None:
        """Arrays that say something about the case and are neither input nor to be compared."""
        self.unread.difference_update(names)

    def value(self, name: str, actual, rtol: float = 1e-4, atol: float = 1e-5) -> None:
        expected = self[name]
        actual = torch.as_tensor(actual).detach().to(expected.dtype)
        torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol, msg=lambda text: f"{name}: {text}")

    def grad(self, name: str, actual: torch.Tensor, like: str | None = None) -> None:
        """Compare a gradient, to 1e-4 of its largest entry, or of that of the gradient ``like``: of a bias in front of
        a batch norm, whose true gradient is zero, the file holds rounding noise."""
        expected = self[name]
        torch.testing.assert_close(
            actual.detach().to(expected.dtype),
            expected,
            rtol=0,
            atol=1e-4 * self[like or name].abs().max().item() + 1e-6,
            msg=lambda text: f"{name}: {text}",
        )

    def exact(self, name: str, actual) -> None:
        expected = self[name]
        torch.testing.assert_close(
            torch.as_tensor(actual).to(expected.dtype),
            expected,
            rtol=0,
            atol=0,
            msg=lambda text: f"{name}: {text}",
        )


class Group(Mapping):
    """The arrays whose names start with a prefix, by the rest of their names. Going through the names reads none."""

    def __init__(self, case: Case, prefix: str):
        self.case, self.prefix = case, prefix
        self.names = [name[len(prefix) :] for name in case.arrays if name.startswith(prefix)]

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self.names:
            raise KeyError(name)
        return self.case[self.prefix + name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
