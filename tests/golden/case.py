"""One golden case: the arrays an official implementation read and produced, and the comparisons they allow."""

from pathlib import Path

import numpy as np
import torch


class Case:
    """Arrays of ``family__case.npz``.

    ``case["q"]`` is a tensor, ``case.hp("p")`` the scalar ``hp_p`` as a Python number. The compare methods take the
    name of the expected array and the value computed here; tolerances are those stated with the arrays.
    """

    def __init__(self, path: Path):
        self.family, self.name = path.stem.split("__", 1)
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self.arrays[name]))

    def hp(self, name: str):
        return self.arrays[f"hp_{name}"].item()

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        """All arrays whose name starts with ``prefix``, without it."""
        return {name[len(prefix) :]: self[name] for name in self.arrays if name.startswith(prefix)}

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
