import itertools
import os

import mmengine
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

import densessl.engine.lars
import densessl.engine.lr_hook
import densessl.engine.precision  # noqa: F401
from densessl.engine.checkpoint import UnsafeCheckpointError, read_checkpoint
from densessl.engine.runner import DenseRunner, load_into
from densessl.registry import RUNNERS
from tests.engine.test_checkpoint import Bomb

NUMBER = itertools.count()
DATA = torch.randn(22, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Toy(BaseModel):
    """Batch norm, dropout, and a step counter in a buffer: all that makes resuming hard."""

    def __init__(self, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(64, classes)
        self.register_buffer("global_step", torch.zeros((), dtype=torch.int64))

    step = property(lambda self: int(self.global_step))

    def begin(self, horizon, seed):
        self.horizon = horizon

    def advance(self):
        self.global_step += 1

    def forward(self, *samples, mode="loss"):
        features = self.drop(self.bn(self.conv(torch.stack(samples))).relu().flatten(1))
        return {"loss": self.fc(features).square().mean()}


def build(work_dir, epochs=4, model=None, cls=DenseRunner, init=0, **options):
    torch.manual_seed(init)
    model = model or Toy()
    torch.manual_seed(1000 + next(NUMBER))  # no run may profit from the state another left behind
    cfg = {
        "model": model,
        "work_dir": str(work_dir),
        "train_dataloader": {
            "dataset": DATA,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "batch_size": 4,
            "drop_last": True,
        },
        "train_cfg": {"by_epoch": True, "max_epochs": epochs},
        "optim_wrapper": {
            "type": "densessl.DenseOptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9},
            "precision": "fp32",
        },
        "custom_hooks": [
            {"type": "densessl.LRHook", "schedule": {"type": "warmup_cosine", "base": 0.2, "warmup_epochs": 1}},
            {"type": "densessl.StepHook"},
        ],
        "default_scope": "densessl",
        "randomness": {"seed": 7},
        "log_level": "WARNING",
        "experiment_name": f"run{next(NUMBER)}",
        **options,
    }
    return cls(**cfg)


class StopAfter(Hook):
    """Ends the run after some epochs, as a preempted job does; the configured length stays what it is."""

    priority = "LOWEST"

    def __init__(self, epochs):
        self.epochs = epochs

    def after_train_epoch(self, runner):
        runner.train_loop.stop_training = runner.epoch + 1 == self.epochs


def assert_same(a, b, where="checkpoint"):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert a == b, where


@pytest.mark.parametrize("counts", [1, 5])
@pytest.mark.parametrize("ema", [False, True])
def test_resuming_at_an_epoch_is_exact_to_the_bit(tmp_path, counts, ema):
    hooks = [{"type": "EMAHook", "momentum": 0.1}] if ema else []

    def run(name, extra=(), **options):
        runner = build(tmp_path / name, **options)
        runner.optim_wrapper["accumulative_counts"] = counts
        for hook in [*hooks, *extra]:
            runner.register_hook(hook)
        runner.train()
        return runner

    run("straight")
    run("broken", [StopAfter(2)])
    assert sorted(path.name for path in (tmp_path / "broken").glob("*.pth")) == ["epoch_1.pth", "epoch_2.pth"]
    resumed = run("broken", resume=True, init=1)
    assert resumed.epoch == 4 and resumed.iter == 20
    for epoch in (3, 4):
        a, b = (read_checkpoint(tmp_path / name / f"epoch_{epoch}.pth") for name in ("straight", "broken"))
        for checkpoint in (a, b):
            for key in ("experiment_name", "time"):
                del checkpoint["meta"][key]
            for key in ("eta", "last_ckpt"):
                del checkpoint["message_hub"]["runtime_info"][key]
        assert_same(a, b)
        assert a["optimizer"]["state"] and ("ema_state_dict" in a) == ema
        assert a["state_dict"]["global_step"] == 5 * epoch // counts
    different = read_checkpoint(tmp_path / "straight" / "epoch_3.pth")["state_dict"]["fc.weight"]
    assert not torch.equal(different, a["state_dict"]["fc.weight"])


def test_reseeding_is_what_makes_resuming_exact(tmp_path):
    """The test above must be able to fail: without reseeding, dropout differs after resuming."""

    def run(name, extra=(), **options):
        runner = build(tmp_path / name, custom_hooks=[{"type": "densessl.StepHook", "reseed": False}], **options)
        for hook in extra:
            runner.register_hook(hook)
        return runner.train()

    straight = run("straight")
    run("broken", [StopAfter(2)])
    assert not torch.equal(straight.fc.weight, run("broken", resume=True, init=1).fc.weight)


@pytest.mark.parametrize(
    "schedulers",
    [
        [
            {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 7},
            {"type": "MultiStepLR", "milestones": [1, 2, 3], "gamma": 0.3, "by_epoch": True},
        ],
        [{"type": "OneCycleLR", "eta_max": 0.5, "total_steps": 20, "by_epoch": False}],
        [{"type": "CosineAnnealingLR", "T_max": 20, "by_epoch": False}],
    ],
)
def test_param_schedulers_go_on(tmp_path, schedulers):
    """As in stock detection configs: the learning rate is MMEngine's own, and so are the wrapper and the hooks."""

    class Record(Hook):
        def __init__(self):
            self.lrs = []

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            self.lrs.append(runner.optim_wrapper.get_lr()["lr"][0])

    def run(name, extra=(), **options):
        record = Record()
        wrapper = {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "clip_grad": {"max_norm": 1.0}}
        runner = build(
            tmp_path / name,
            optim_wrapper=wrapper,
            param_scheduler=[dict(cfg) for cfg in schedulers],
            custom_hooks=[record, *extra],
            default_scope="mmengine",
            **options,
        )
        runner.train()
        return record.lrs

    straight = run("straight")
    first = run("broken", [StopAfter(2)])
    assert first + run("broken", resume=True) == straight and len(set(straight)) > 3


class Two(Toy):
    def train_step(self, data, optim_wrapper):
        loss = self(*data)["loss"]
        loss.backward()
        for wrapper in optim_wrapper.values():
            wrapper.step()
            wrapper.zero_grad()
        return {"loss": loss.detach()}


def test_several_optimisers_are_restored(tmp_path):
    def run(extra=(), **options):
        model = Two()
        model.drop.p = 0.0
        wrappers = {
            "conv": OptimWrapper(torch.optim.AdamW(model.conv.parameters(), lr=0.01)),
            "fc": OptimWrapper(torch.optim.SGD(model.fc.parameters(), lr=0.1, momentum=0.9)),
        }
        schedulers = {name: [{"type": "ExponentialLR", "gamma": gamma}] for name, gamma in (("conv", 0.5), ("fc", 0.1))}
        return build(
            tmp_path,
            model=model,
            optim_wrapper=wrappers,
            param_scheduler=schedulers,
            custom_hooks=list(extra),
            **options,
        )

    first = run([StopAfter(2)])
    first.train()
    saved = read_checkpoint(tmp_path / "epoch_2.pth")
    assert set(saved["optimizer"]) == set(saved["param_schedulers"]) == {"conv", "fc"}
    second = run()
    second.resume(str(tmp_path / "epoch_2.pth"))
    assert_same(
        {name: wrapper.state_dict() for name, wrapper in second.optim_wrapper.items()},
        {name: wrapper.state_dict() for name, wrapper in first.optim_wrapper.items()},
    )
    assert second.optim_wrapper["fc"].get_lr()["lr"] == pytest.approx([0.1 * 0.1**2])
    assert second.param_schedulers["fc"][0].last_step == 2


def train_one(work_dir, **options):
    runner = build(work_dir, epochs=1, **options)
    runner.train()
    return runner, work_dir / "epoch_1.pth"


def test_the_stock_runner_can_resume_our_checkpoints(tmp_path):
    _, path = train_one(tmp_path)
    stock = build(tmp_path, cls=Runner, epochs=2, custom_hooks=[])
    stock.resume(str(path))
    assert (stock.epoch, stock.iter) == (1, 5)
    assert torch.equal(stock.model.fc.weight, read_checkpoint(path)["state_dict"]["fc.weight"])


def test_it_is_built_by_runner_type():
    assert RUNNERS.get("densessl.DenseRunner") is DenseRunner is RUNNERS.get("DenseRunner")


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
        text = f"import os\nos.mkdir({str(marker)!r})\n"
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
            "7 of 10 tensors loaded; 1 missing (conv.bias); 1 unexpected (extra); "
            "2 of another shape (fc.weight (3, 64) for (2, 64), fc.bias (3,) for (2,))"
        ) in log

    def test_weights_that_fit_nothing_are_an_error(self):
        with pytest.raises(ValueError, match=r"do not fit Toy: 0 of 9 tensors loaded; .*1 unexpected \(x\)"):
            load_into(Toy(), {"x": torch.ones(1)})

    def test_strict_means_all(self):
        weights = Toy().state_dict()
        assert load_into(Toy(), weights, strict=True) == "10 of 10 tensors loaded"
        del weights["bn.bias"]
        with pytest.raises(ValueError, match=r"9 of 10 tensors loaded; 1 missing \(bn.bias\)"):
            load_into(Toy(), weights, strict=True)

    def test_modules_still_upgrade_old_names(self):
        class Renamed(nn.Linear):
            _version = 2

            def _load_from_state_dict(self, state_dict, prefix, metadata, *args):
                if metadata.get("version") != 2:
                    state_dict[prefix + "weight"] = state_dict.pop(prefix + "old")
                super()._load_from_state_dict(state_dict, prefix, metadata, *args)

        model = Renamed(2, 1)
        assert load_into(Renamed(2, 1), model.state_dict(), strict=True) == "2 of 2 tensors loaded"
        old = {"old": model.weight.detach(), "bias": model.bias.detach()}
        other = Renamed(2, 1)
        assert load_into(other, old) == "2 of 2 tensors loaded"
        assert torch.equal(other.weight, model.weight)


class TestResumeErrors:
    def test_another_batch(self, tmp_path):
        _, path = train_one(tmp_path)
        loader = {"dataset": DATA, "sampler": {"type": "DefaultSampler", "shuffle": True}, "batch_size": 2}
        with pytest.raises(ValueError, match=r"4 images a step \(4 x 1 .*, this run has 2 images a step \(2 x 1 "):
            build(tmp_path, train_dataloader=loader).resume(str(path))

    def test_another_data_set(self, tmp_path):
        _, path = train_one(tmp_path)
        loader = {"dataset": DATA[:9], "sampler": {"type": "DefaultSampler", "shuffle": True}, "batch_size": 4}
        with pytest.raises(ValueError, match=r"epochs have 5 iterations of .*, those of this run 3"):
            build(tmp_path, train_dataloader=loader).resume(str(path))

    def test_same_step_on_another_number_of_processes(self, tmp_path):
        runner, path = train_one(tmp_path)
        facts = runner._run_facts()
        assert facts == {
            "world_size": 1, "batch_size": 4, "accumulative_counts": 1, "images_per_step": 4, "iters_per_epoch": 5,
        }  # fmt: skip
        content = read_checkpoint(path)
        content["meta"]["run"] = {**facts, "world_size": 2, "batch_size": 2}
        torch.save(content, path)
        other = build(tmp_path)
        other.resume(str(path))
        logs = "".join(file.read_text() for file in tmp_path.glob("*/*.log"))
        assert "was trained by 2 processes, this run has 1" in logs

    def test_another_model(self, tmp_path):
        _, path = train_one(tmp_path)
        with pytest.raises(ValueError, match=r"cannot resume .*epoch_1.pth: .*of another shape \(fc.weight"):
            build(tmp_path, model=Toy(3)).resume(str(path))

    def test_another_optimiser(self, tmp_path):
        _, path = train_one(tmp_path)
        wrapper = {
            "constructor": "densessl.DenseOptimWrapperConstructor",
            "optimizer": {"type": "densessl.LARS", "lr": 1.0},
        }
        with pytest.raises(ValueError, match=r"its optimiser state does not fit: .*parameter group"):
            build(tmp_path, optim_wrapper=wrapper).resume(str(path))

    def test_another_list_of_schedulers(self, tmp_path):
        _, path = train_one(tmp_path)
        with pytest.raises(ValueError, match="holds None parameter schedulers, this run has 1"):
            build(tmp_path, param_scheduler=[{"type": "ConstantLR", "factor": 0.5}]).resume(str(path))

    def test_weights_only_files(self, tmp_path):
        runner, _ = train_one(tmp_path)
        torch.save(runner.model.state_dict(), tmp_path / "w.pth")
        with pytest.raises(ValueError, match="it has no 'meta'; for its weights alone use load_from"):
            build(tmp_path).resume(str(tmp_path / "w.pth"))
        runner.save_checkpoint(str(tmp_path), "best.pth", save_optimizer=False)
        with pytest.raises(ValueError, match="no optimiser state"):
            build(tmp_path).resume(str(tmp_path / "best.pth"))

    def test_remote_backends(self, tmp_path):
        runner, _ = train_one(tmp_path)
        with pytest.raises(ValueError, match="checkpoints are local files"):
            runner.save_checkpoint(str(tmp_path), "x.pth", backend_args={"backend": "petrel"})

    def test_state_that_is_no_data(self, tmp_path):
        class Attach(Hook):
            def before_save_checkpoint(self, runner, checkpoint):
                checkpoint["mine"] = {"object": object()}

        with pytest.raises(TypeError, match=r"checkpoint\['mine'\]\['object'\] is a builtins.object"):
            train_one(tmp_path, custom_hooks=[Attach()])
        assert not list(tmp_path.glob("*.pth")) and not os.path.exists(tmp_path / "last_checkpoint")


def test_the_seed_of_the_checkpoint_is_taken_over(tmp_path):
    train_one(tmp_path, randomness={"seed": 11})
    runner = build(tmp_path, resume=True, randomness={"seed": None})
    runner.load_or_resume()
    assert runner.seed == 11


def test_stock_hooks_keep_and_prune_across_a_resume(tmp_path):
    hooks = {"checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 2}}
    train_one(tmp_path, default_hooks=hooks)
    build(tmp_path, epochs=4, resume=True, default_hooks=hooks).train()
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["epoch_3.pth", "epoch_4.pth"]
    assert (tmp_path / "last_checkpoint").read_text().endswith("epoch_4.pth")
