"""The first lines of a log, which sum up the run: its images, steps, learning rate and work dir."""

from collections.abc import Iterator

from mmengine.dist import get_world_size
from mmengine.runner import Runner

from densessl.engine.lr_hook import LRHook
from densessl.wording import count


def opening_lines(runner: Runner) -> Iterator[str]:
    """Yield lines on the images, steps, learning rate and work dir of a run whose training is set up.

    Facts that the loader or the optimiser does not have are left out.
    """
    loader, dataset = runner.train_dataloader, runner.train_dataloader.dataset
    images = getattr(dataset, "images", None)
    line = f"images: {len(dataset):,}"
    if images is not None:
        line += f" of {len(images.paths):,}" * (len(dataset) < len(images.paths)) + f" in {images.root}"
        passed = ", ".join(f"{number:,} {suffix or 'without suffix'}" for suffix, number in images.others.items())
        line += f"; passed over: {passed}" if passed else ""
    yield line
    depth = getattr(getattr(dataset, "reading", None), "depth", None)
    if depth is not None:
        yield f"images of more than 8 bits: {depth} becomes black to white (train_dataloader.dataset.depth_range)"
    batch = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    accumulated = getattr(runner.optim_wrapper, "_accumulative_counts", 1)
    if batch:
        step = batch * get_world_size() * accumulated
        parts = f"{batch} x {count(get_world_size(), 'process', 'processes')}"
        parts += f" x {accumulated} accumulated" * (accumulated > 1)
        parts = f" ({parts})" if step != batch else ""
        line = f"a step: {count(step, 'image')}{parts}; {count(len(loader) / accumulated, 'step')} an epoch"
        if runner.max_epochs > 1 or runner.max_iters == len(loader):
            line += f", {count(runner.max_epochs, 'epoch')}"
        yield f"{line}, {count(runner.max_iters // accumulated, 'step')} in all"
    rate = next((hook.base for hook in runner.hooks if isinstance(hook, LRHook)), None)
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    if optimizer is not None:
        rate = optimizer.defaults.get("lr") if rate is None else rate
        yield f"optimiser: {type(optimizer).__name__}, peak learning rate {rate:g}; workers: {loader.num_workers}"
    yield f"results: {runner.work_dir}"
