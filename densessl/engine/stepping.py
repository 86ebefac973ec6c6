"""Training one iteration at a time, for notebooks and for programs that look at a run from outside."""

from collections.abc import Iterator

from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from densessl.errors import SettingError


def steps(runner: Runner) -> Iterator[dict[str, Tensor]]:
    """Train as ``runner.train()`` does, with all hooks, but stop after every iteration and give what the model returned
    in it: losses and figures by name. Taken to its end, this leaves what ``train()`` leaves.

    Raises:
        SettingError: the run counts iterations instead of epochs.
    """
    outputs: list[dict[str, Tensor]] = []
    loop = _ready(runner, outputs)
    runner.call_hook("before_train")
    while loop._epoch < loop._max_epochs and not loop.stop_training:
        runner.call_hook("before_train_epoch")
        runner.model.train()
        for index, batch in enumerate(loop.dataloader):
            loop.run_iter(index, batch)
            yield outputs.pop()
        runner.call_hook("after_train_epoch")
        loop._epoch += 1
    runner.call_hook("after_train")
    runner.call_hook("after_run")


def _ready(runner: Runner, outputs: list) -> EpochBasedTrainLoop:
    """Do what ``train()`` does before its loop runs, and have the loop's outputs collected."""
    hold = {"after_run": True}
    loop: list[EpochBasedTrainLoop] = []
    build, call = runner.build_train_loop, runner.call_hook

    def build_and_hold(config):
        built = build(config)
        if not isinstance(built, EpochBasedTrainLoop):
            raise SettingError(
                "train_cfg: found a loop over iterations, expected epochs (by_epoch=True) to step through"
            )
        built.run = lambda: runner.model
        loop.append(built)
        return built

    def call_but_the_end(name: str, **arguments) -> None:
        if name == "after_train_iter":
            outputs.append(arguments["outputs"])
        if not (name == "after_run" and hold["after_run"]):
            call(name, **arguments)

    runner.build_train_loop, runner.call_hook = build_and_hold, call_but_the_end
    try:
        runner.train()
    finally:
        runner.build_train_loop = build
        hold["after_run"] = False
    return loop[-1]
