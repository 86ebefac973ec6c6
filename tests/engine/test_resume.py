"""Going on where a run stopped: exactly, or not at all."""

import os

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from densessl.errors import CheckpointError
from densessl.weights.io.checkpoints import read_checkpoint
from tests.engine.toy import DATA, StopAfter, Toy, assert_same, build, train_one


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


def test_the_stock_runner_can_resume_our_checkpoints(tmp_path):
    _, path = train_one(tmp_path)
    stock = build(tmp_path, cls=Runner, epochs=2, custom_hooks=[])
    stock.resume(str(path))
    assert (stock.epoch, stock.iter) == (1, 5)
    assert torch.equal(stock.model.fc.weight, read_checkpoint(path)["state_dict"]["fc.weight"])


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
            "max_iters": 5,
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
        with pytest.raises(ValueError, match=r"(?s)cannot resume .*epoch_1.pth: .*of another shape \(2\): fc.weight"):
            build(tmp_path, model=Toy(3)).resume(str(path))

    def test_another_optimiser(self, tmp_path):
        _, path = train_one(tmp_path)
        wrapper = {
            "constructor": "densessl.DenseOptimWrapperConstructor",
            "optimizer": {"type": "densessl.LARS", "lr": 1.0},
        }
        with pytest.raises(ValueError, match=r"its optimiser state does not fit: .*parameter group"):
            build(tmp_path, optim_wrapper=wrapper).resume(str(path))

    def test_another_type_of_optimiser(self, tmp_path):
        _, path = train_one(tmp_path)
        wrapper = {"type": "densessl.DenseOptimWrapper", "optimizer": {"type": "Adam", "lr": 1.0}, "precision": "fp32"}
        with pytest.raises(CheckpointError, match=r"its optimiser has the settings .*momentum.*, this run's .*betas"):
            build(tmp_path, optim_wrapper=wrapper).resume(str(path))

    def test_another_list_of_schedulers(self, tmp_path):
        _, path = train_one(tmp_path)
        with pytest.raises(ValueError, match="holds None parameter schedulers, this run has 1"):
            build(tmp_path, param_scheduler=[{"type": "ConstantLR", "factor": 0.5}]).resume(str(path))

    def test_weights_only_files(self, tmp_path):
        runner, _ = train_one(tmp_path)
        torch.save(runner.model.state_dict(), tmp_path / "w.pth")
        with pytest.raises(ValueError, match="it has no 'meta'; for its weights alone use --init"):
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
