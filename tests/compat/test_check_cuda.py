"""The CUDA check says so where there is no GPU, and tells right from wrong (here the CPU stands in for a GPU)."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.det

SCRIPT = Path(__file__).parents[2] / "tools" / "check_compat_cuda.py"


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("check_compat_cuda", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu(script, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script.main(["--out", str(tmp_path / "report.json")]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_verdicts(script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Right operators agree in every dtype; one that is off by a thousandth, or raises, does not."""
    cases = script.cases()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "stand-in")
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor.clone())
    monkeypatch.setattr(script, "cases", lambda: {name: cases[name] for name in ("nms offset=0", "ms_deform_attn")})
    report = tmp_path / "report.json"
    assert script.main(["--out", str(report)]) == 0
    rows = json.loads(report.read_text())["rows"]
    assert [row["dtype"] for row in rows] == ["float64", "float32", "float16", "bfloat16"] * 2
    assert all(row["agrees"] for row in rows)

    x = torch.linspace(-1, 1, 8, dtype=torch.float64)
    wrong = {
        "off": (lambda x: x if x.dtype == torch.float64 else x * 1.001, [x], 1),
        "raises": (lambda x: x if x.dtype == torch.float64 else x.missing, [x], 1),
    }
    for name, case in wrong.items():
        assert script.check(name, case, torch.float64)["agrees"]
        assert not script.check(name, case, torch.float32)["agrees"]
