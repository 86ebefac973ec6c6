"""What the runner reads from files: weights to start from, and files that mean harm."""

import mmengine
import pytest
import torch
from torch import nn

from densessl.engine.runner import DenseRunner, load_into
from densessl.errors import LoadError, UnsafeCheckpointError
from densessl.registry import RUNNERS
from densessl.weights.io.checkpoints import read_checkpoint
from tests.engine.toy import Toy, build, train_one
from tests.weights.test_checkpoint import Bomb


def test_it_is_built_by_runner_type():
    assert RUNNERS.get("densessl.DenseRunner") is DenseRunner is RUNNERS.get("DenseRunner")


def test_the_config_is_kept_without_seconds_of_formatting(tmp_path, monkeypatch):
    """It is written and logged four times before the first step."""
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda *_, **__: pytest.fail("the config was formatted"))
    file = tmp_path / "given.py"
    file.write_text("views = [dict(size=32, scale=(0.08, 1.0))]\nname = 'a \\'quoted\\' word'\nlog_level = 'WARNING'\n")
    given = mmengine.Config.fromfile(file)
    build(tmp_path / "run", epochs=1, cfg=given).train()
    assert mmengine.Config.fromfile(tmp_path / "run/given.py").to_dict() == given.to_dict()


class TestMaliciousFiles:
    def payload(self, tmp_path, path):
        content = read_checkpoint(path) | {"extra": Bomb(tmp_path / "marker")}
        torch.save(content, path)

    @pytest.mark.parametrize("options", [{"resume": True}, {"resume": True, "named": True}, {"named": True}])
    def test_payload(self, tmp_path, options):
        _, path = train_one(tmp_path / "run")
        self.payload(tmp_path, path)
        options = dict(options)
        if options.pop("named", False):
            options["load_from"] = str(path)
        with pytest.raises(UnsafeCheckpointError, match="it was not read"):
            build(tmp_path / "run", **options).train()
        assert not (tmp_path / "marker").exists()

    def test_payload_in_the_state_of_the_optimiser(self, tmp_path):
        _, path = train_one(tmp_path / "run")
        content = read_checkpoint(path)
        content["optimizer"]["state"][0]["momentum_buffer"] = Bomb(tmp_path / "marker")
        torch.save(content, path)
        with pytest.raises(UnsafeCheckpointError):
            build(tmp_path / "run").resume(str(path))
        assert not (tmp_path / "marker").exists()

    @pytest.mark.parametrize("key", ["config", "cfg"])
    def test_config_text_is_not_executed(self, tmp_path, key):
        marker = tmp_path / "marker"
        # Without an import statement, which would make MMEngine 0.10.7 read it as a config of its lazy kind.
        text = f"__import__('os').mkdir({str(marker)!r})\n"
        mmengine.Config.fromstring(text, file_format=".py")  # what the stock runner does with it
        assert marker.exists()
        marker.rmdir()
        _, path = train_one(tmp_path / "run")
        content = read_checkpoint(path)
        content["meta"][key] = content["message_hub"]["runtime_info"][key] = text
        torch.save(content, path)
        runner = build(tmp_path / "run", epochs=2, resume=True)
        runner.train()
        assert runner.epoch == 2 and not marker.exists()
        assert text not in str(read_checkpoint(tmp_path / "run" / "epoch_2.pth")["message_hub"])

    def test_files_elsewhere_are_not_deleted(self, tmp_path):
        """CheckpointHook deletes the best checkpoint that is noted when a better one comes."""
        _, path = train_one(tmp_path / "run")
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious.pth").touch()
        content = read_checkpoint(path)
        infos = content["message_hub"]["runtime_info"]
        infos.update(best_ckpt=str(tmp_path / "precious"), best_ckpt_map=str(tmp_path / "run" / ".." / "precious.pth"))
        infos.update(keep_ckpt_ids=["../../precious"], best_score=0.5, last_ckpt=str(path))
        torch.save(content, path)
        runner = build(tmp_path / "run")
        runner.resume(str(path))
        hub = runner.message_hub.runtime_info
        assert not {"best_ckpt", "best_ckpt_map", "keep_ckpt_ids"} & set(hub)
        assert (hub["best_score"], hub["last_ckpt"]) == (0.5, str(path))


def test_checkpoints_hold_no_config(tmp_path):
    _, path = train_one(tmp_path, cfg={"secret": "do not ship"})
    assert "do not ship" not in str(read_checkpoint(path)) and b"do not ship" not in path.read_bytes()


class TestLoadOrResume:
    def test_auto_starts_from_load_from_when_there_is_nothing_to_resume(self, tmp_path):
        _, path = train_one(tmp_path / "old")
        runner = build(tmp_path / "new", resume="auto", load_from=str(path))
        runner.load_or_resume()
        assert (runner.epoch, runner.iter) == (0, 0)
        assert torch.equal(runner.model.fc.weight, read_checkpoint(path)["state_dict"]["fc.weight"])

    def test_auto_prefers_its_own_checkpoint(self, tmp_path):
        train_one(tmp_path / "new")
        runner = build(tmp_path / "new", resume="auto", load_from=str(tmp_path / "absent.pth"))
        runner.load_or_resume()
        assert (runner.epoch, runner.iter) == (1, 5)

    def test_resume_without_a_checkpoint_starts_afresh(self, tmp_path):
        runner = build(tmp_path, resume=True)
        runner.load_or_resume()
        assert (runner.epoch, runner.iter) == (0, 0)

    def test_weights_of_a_wrapped_model_are_found_and_counted(self, tmp_path):
        weights = {f"module.{name}": tensor + 1 for name, tensor in Toy(3).state_dict().items()}
        weights["module.extra"] = torch.ones(1)
        del weights["module.conv.bias"]
        torch.save({"state_dict": weights}, tmp_path / "w.pth")
        runner = build(tmp_path / "run", load_from=str(tmp_path / "w.pth"), log_level="INFO")
        runner.load_or_resume()
        assert torch.equal(runner.model.conv.weight, weights["module.conv.weight"])
        log = next((tmp_path / "run").glob("*/*.log")).read_text()
        assert (
            "7/10 model tensors loaded; 1 unexpected\n  missing (1): conv.bias\n  of another shape (2): fc.weight: "
            "found (3, 64), expected (2, 64), fc.bias: found (3,), expected (2,)\n  unexpected (1): extra"
        ) in log

    def test_weights_that_fit_nothing_are_an_error(self):
        with pytest.raises(
            LoadError, match=r"do not fit Toy: 0/9 model tensors fit, none loaded; 1 unexpected"
        ) as raised:
            load_into(Toy(), {"x": torch.ones(1)})
        assert raised.value.report.unexpected == ["x"] and raised.value.report.coverage == 0

    def test_strict_means_all(self):
        weights = Toy().state_dict()
        assert load_into(Toy(), weights, strict=True).summary == "10/10 model tensors loaded; 0 unexpected"
        del weights["bn.bias"]
        other = Toy()
        before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
        with pytest.raises(
            LoadError, match=r"9/10 model tensors fit, none loaded; 0 unexpected\n  missing \(1\): bn.bias"
        ):
            load_into(other, weights, strict=True)
        assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())

    def test_modules_still_upgrade_old_names(self):
        class Renamed(nn.Linear):
            _version = 2

            def _load_from_state_dict(self, state_dict, prefix, metadata, *args):
                if metadata.get("version") != 2:
                    state_dict[prefix + "weight"] = state_dict.pop(prefix + "old")
                super()._load_from_state_dict(state_dict, prefix, metadata, *args)

        model = Renamed(2, 1)
        assert load_into(Renamed(2, 1), model.state_dict(), strict=True).loaded == 2
        old = {"old": model.weight.detach(), "bias": model.bias.detach()}
        other = Renamed(2, 1)
        assert load_into(other, old).summary == "2/2 model tensors loaded; 0 unexpected"
        assert torch.equal(other.weight, model.weight)
