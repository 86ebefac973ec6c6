"""MMEngine's runner with checkpoints that cannot execute code.

The stock runner unpickles a checkpoint that does not load safely, and executes the config text inside the checkpoint
that it resumes. This runner reads and writes through :mod:`densessl.weights.io.checkpoints` and stores no config.
Otherwise it behaves like the stock runner, and it runs stock configs (``runner_type = 'densessl.DenseRunner'``).
"""

import copy
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import get_world_size, master_only
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from densessl.engine.compiling import checked_options, compile_error, compile_networks
from densessl.engine.resumable import check_length, check_steps
from densessl.engine.resumed_schedulers import resume_schedulers, scheduler_states
from densessl.engine.stepping import steps
from densessl.errors import CheckpointError, LoadError, SettingError
from densessl.quiet import silence, silence_coco
from densessl.registry import RUNNERS
from densessl.sizes import SETTLED, few_images
from densessl.version import __version__
from densessl.weights.io.checkpoints import (
    checkpoint_to_resume,
    load_weights,
    read_checkpoint,
    rename,
    save_checkpoint,
    to_plain,
)
from densessl.weights.state import load_into
from densessl.wording import count

# Facts about the process rather than the run; the resuming process has its own.
_OF_THE_PROCESS = ("cfg", "seed", "experiment_name", "mmengine_version", "dataset_meta", "loop_stage")

# Prefixes that DistributedDataParallel and torch.compile put into names.
_WRAPPERS = ((r"^module\.", ""), (r"(^|\.)_orig_mod\.", r"\1"))

_RUNS = itertools.count(1)  # of this process


@RUNNERS.register_module()
class DenseRunner(Runner):
    """MMEngine's ``Runner``; its arguments are unchanged, but ``resume`` may also be ``'auto'``.

    ``resume=True`` resumes ``load_from`` or, if that is None, the latest checkpoint of the work dir, if any.
    ``resume='auto'`` resumes the latest checkpoint of the work dir; if there is none, it starts from the weights of
    ``load_from``, if given. Checkpoints are local files.
    """

    def __init__(self, *args, **kwargs):
        self._quiet: list[tuple[logging.Handler, int]] = []
        cfg = kwargs.get("cfg")
        cfg = kwargs["cfg"] = copy.copy(cfg) if isinstance(cfg, Config) else Config(dict(cfg or {}))
        if cfg.get("compile"):
            checked_options({} if cfg.compile is True else cfg.compile)
        # Otherwise yapf formats the config's text four times before the first step: seconds for a detector's config.
        object.__setattr__(cfg, "_format_python_code", False)
        # MMEngine keys loggers and visualizers by this name and the time in seconds: two runs built within one second
        # would share them.
        name = kwargs.get("experiment_name") or Path(cfg.filename or "run").stem
        kwargs["experiment_name"] = f"{name}_{next(_RUNS)}"
        super().__init__(*args, **kwargs)
        for handler, level in self._quiet:
            handler.setLevel(level)

    def steps(self) -> Iterator[dict[str, Tensor]]:
        """Train one iteration at a time, see :func:`densessl.engine.stepping.steps`."""
        return steps(self)

    @staticmethod
    def build_dataloader(dataloader, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
        """Build the loader as MMEngine does, and refuse one that yields no batch.

        Raises:
            SettingError: the data set has fewer images than one batch.
        """
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if len(loader) == 0:
            batch = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
            raise few_images(len(loader.dataset), batch, get_world_size())
        return loader

    def _log_env(self, env_cfg: dict) -> None:
        """Log one line on the environment to the console, and the full account to the log file.

        Environment, config and hooks take some hundred lines, so the console shows only warnings until the runner is
        set up.
        """
        silence(self.logger)
        silence_coco()
        self.logger.info(
            f"densessl {__version__}, torch {torch.__version__}, {self.world_size} x {get_device()}, seed {self.seed}"
        )
        self._quiet = [
            (handler, handler.level)
            for handler in self.logger.handlers
            if type(handler) is logging.StreamHandler and handler.level < logging.WARNING
        ]
        for handler, _ in self._quiet:
            handler.setLevel(logging.WARNING)
        super()._log_env(env_cfg)

    def train(self) -> nn.Module:
        """Train as MMEngine's runner does.

        Raises:
            SettingError: the model cannot be compiled as the config asks.
        """
        try:
            return super().train()
        except Exception as error:
            in_words = compile_error(error) if self.cfg.get("compile") else None
            if in_words is None:
                raise
            raise in_words from error

    def _maybe_compile(self, target: str) -> None:
        """Compile the networks inside the model, not its ``target``; see :mod:`densessl.engine.compiling`."""
        options = self.cfg.get("compile")
        if options:
            names = compile_networks(self._bare_model, {} if options is True else options)
            self.logger.info(f"compiled: {', '.join(names)}. The first iterations are slow")

    def load_or_resume(self) -> None:
        if self._has_loaded:
            return
        resumed = checkpoint_to_resume(self._resume, self._load_from, self.work_dir)
        if resumed is not None:
            self.resume(str(resumed))
            return
        if self._resume:
            self.logger.info(f"Nothing to resume in {self.work_dir}.")
        if self._load_from is not None:
            self.load_checkpoint(self._load_from)

    def load_checkpoint(self, filename: str, map_location="cpu", strict: bool = False, revise_keys=_WRAPPERS) -> dict:
        """Load weights into the model, through :func:`load_weights`, and log which of them were loaded.

        Args:
            map_location: accepted for compatibility; tensors are read to the CPU and copied into the model.
            revise_keys: (pattern, replacement) pairs applied to the names of the weights.

        Returns:
            ``dict(meta={}, state_dict=weights)``, the form that hooks expect.
        """
        checkpoint = {"meta": {}, "state_dict": rename(load_weights(filename), revise_keys)}
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        report = load_into(self._bare_model, checkpoint["state_dict"], strict, filename)
        self.logger.info(f"load_from {filename}: {report}")
        self._has_loaded = True
        return checkpoint

    def resume(
        self,
        filename: str,
        resume_optimizer: bool = True,
        resume_param_scheduler: bool = True,
        map_location="default",
    ) -> None:
        """Restore model, optimiser, schedulers, seed and position from a checkpoint that this class wrote.

        Schedules follow the config: if it has another length or other schedulers than the run that wrote the file, the
        learning rates from here on are those of a run that had this config from its beginning.

        Raises:
            UnsafeCheckpointError: reading the file would execute code.
            CheckpointError: the model differs, the file has no optimiser state, this run has another number of images
                per optimiser step or of iterations per epoch than the run that wrote the file, or it is shorter than
                what has been trained.
        """
        checkpoint = read_checkpoint(filename)
        for key in ("meta", "state_dict"):
            if not isinstance(checkpoint.get(key), dict):
                raise CheckpointError(f"cannot resume {filename}: it has no {key!r}; for its weights alone use --init")
        meta = checkpoint["meta"]
        lacking = [key for key in ("epoch", "iter") if not isinstance(meta.get(key), int)]
        if lacking:
            raise CheckpointError(
                f"cannot resume {filename}: meta[{lacking[0]!r}], how far the run had come, is missing; for its "
                "weights alone use --init"
            )
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        check_steps(meta.get("run", {}), self._run_facts(), filename, self.logger)
        check_length(meta, self.train_loop, filename)
        self.call_hook("after_load_checkpoint", checkpoint=checkpoint)
        try:
            load_into(self._bare_model, checkpoint["state_dict"], strict=True, source=filename)
        except LoadError as error:
            raise CheckpointError(f"cannot resume {filename}: {error}") from error

        self.train_loop._epoch = meta["epoch"]
        self.train_loop._iter = meta["iter"]
        seed = meta.get("seed")
        if seed is not None and seed != self._randomness_cfg.get("seed"):
            if self._randomness_cfg.get("seed") is not None:
                self.logger.warning(f"The seed {seed} of {filename} replaces the configured one.")
            self._randomness_cfg.update(seed=seed)
            self.set_randomness(**self._randomness_cfg)
        self._restore_infos(checkpoint.get("message_hub", {}).get("runtime_info", {}))
        finish = self._resume_schedule(checkpoint, filename, resume_optimizer, resume_param_scheduler)
        if resume_optimizer:
            self._restore_optimizer(checkpoint, filename)
        finish()
        self._has_loaded = True
        self.logger.info(f"resumed {filename} at epoch {self.epoch}, iteration {self.iter}")

    @master_only
    def save_checkpoint(
        self,
        out_dir: str,
        filename: str,
        file_client_args: dict | None = None,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        meta: dict | None = None,
        by_epoch: bool = True,
        backend_args: dict | None = None,
    ) -> None:
        """Write ``out_dir/filename``, with the signature that MMEngine's hooks call.

        Raises:
            SettingError: a file backend is configured; checkpoints are local files, which can be written atomically.
            TypeError: the state of the model or of a hook holds more than tensors and plain data.
        """
        if file_client_args is not None or backend_args is not None:
            raise SettingError(
                "CheckpointHook: file_client_args and backend_args must be None, checkpoints are local files"
            )
        meta = dict(meta or {})
        # MMEngine counts an epoch or an iteration after its checkpoint is written.
        meta.setdefault("epoch", self.epoch + 1 if by_epoch else self.epoch)
        meta.setdefault("iter", self.iter if by_epoch else self.iter + 1)
        meta.update(
            seed=self.seed,
            experiment_name=self.experiment_name,
            time=time.strftime("%Y%m%d_%H%M%S"),
            densessl_version=__version__,
            mmengine_version=mmengine.__version__,
            torch_version=torch.__version__,
            run={**self._run_facts(), SETTLED: self.cfg.get(SETTLED)},
            dataset_meta=getattr(self.train_dataloader.dataset, "metainfo", None),
        )
        hub = self.message_hub
        infos = {
            key: value
            for key, value in hub.runtime_info.items()
            if hub._resumed_keys.get(key) and key not in _OF_THE_PROCESS
        }
        infos = to_plain(infos, drop=True)
        checkpoint = {
            "meta": to_plain(meta, drop=True),
            "state_dict": to_plain(self._bare_model.state_dict(), "state_dict"),
            # MMEngine's three keys, so that its own runner can read the file. The log history is not stored.
            "message_hub": {"log_scalars": {}, "runtime_info": infos, "resumed_keys": dict.fromkeys(infos, True)},
        }
        if save_optimizer:
            checkpoint["optimizer"] = to_plain(self.optim_wrapper.state_dict(), "optimizer")
        if save_param_scheduler and self.param_schedulers is not None:
            checkpoint["param_schedulers"] = scheduler_states(self.param_schedulers)
        self.call_hook("before_save_checkpoint", checkpoint=checkpoint)
        save_checkpoint(Path(out_dir) / filename, checkpoint)

    @property
    def _bare_model(self) -> nn.Module:
        wrapped = is_model_wrapper(self.model) or isinstance(self.model, BaseTTAModel)
        return self.model.module if wrapped else self.model

    def _run_facts(self) -> dict:
        """Images per optimiser step and iterations per epoch of this run, with the factors of the former."""
        loader = self.train_dataloader
        batch = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        accumulation = getattr(self.optim_wrapper, "_accumulative_counts", 1)
        return {
            "world_size": self.world_size,
            "batch_size": batch,
            "accumulative_counts": accumulation,
            "images_per_step": batch and batch * self.world_size * accumulation,
            "iters_per_epoch": len(loader),
            "max_iters": self.train_loop.max_iters,
        }

    def _resume_schedule(self, checkpoint: dict, filename: str, optimizer: bool, wanted: bool) -> Callable[[], None]:
        """Bring the schedulers to the position of the checkpoint, and log what differs in its schedule.

        Args:
            optimizer: whether the state of the optimiser, with its learning rates, is going to be restored.
            wanted: whether schedulers are to be resumed at all.

        Returns:
            A function to call after the state of the optimiser was restored.
        """
        loop, before = self.train_loop, checkpoint["meta"].get("run", {}).get("max_iters")
        told = []
        if isinstance(before, int) and before != loop.max_iters:
            told = [f"this run lasts {count(loop.max_iters, 'iteration')}, that one {before:,}"]
        finish: Callable[[], None] = lambda: None  # noqa: E731
        if wanted and self.param_schedulers is not None:
            self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
            position = loop.iter, loop.epoch, len(self.train_dataloader)
            changes, finish = resume_schedulers(
                self.param_schedulers, checkpoint.get("param_schedulers"), position, filename, optimizer
            )
            told += [changes] if changes else []
        if told:
            self.logger.info(f"{filename} was under another schedule: {'; '.join(told)}. From here on this run's holds")
        return finish

    def _restore_infos(self, infos: dict) -> None:
        """Restore the saved runtime information.

        MMEngine's CheckpointHook deletes files that it names, so names outside the folders of this run are dropped, and
        so are steps that are not numbers.
        """
        folders = [Path(self.work_dir), *(Path(hook.out_dir) for hook in self._hooks if getattr(hook, "out_dir", None))]
        for key, value in infos.items():
            if key in _OF_THE_PROCESS:
                continue
            if key.startswith(("best_ckpt", "last_ckpt")):
                path = Path(str(value)).resolve()
                if not any(path.is_relative_to(folder.resolve()) for folder in folders) or path.is_dir():
                    self.logger.warning(f"{key} of the checkpoint lies outside this run and is ignored: {value}")
                    continue
            if key == "keep_ckpt_ids" and not all(type(step) is int for step in value):
                continue
            self.message_hub.update_info(key, value)

    def _restore_optimizer(self, checkpoint: dict, filename: str) -> None:
        if "optimizer" not in checkpoint:
            raise CheckpointError(
                f"cannot resume {filename}: it holds no optimiser state (MMEngine's 'best' checkpoints do not); "
                "resume another one of the run, or start a new run from its weights with --init"
            )
        saved, ours = (_settings_of(state) for state in (checkpoint["optimizer"], self.optim_wrapper.state_dict()))
        if len(saved) == len(ours) and saved != ours:
            raise CheckpointError(
                f"cannot resume {filename}: its optimiser has the settings {', '.join(sorted(set().union(*saved)))}, "
                f"this run's has {', '.join(sorted(set().union(*ours)))}; start a new run from its weights with --init"
            )
        try:
            self.optim_wrapper.load_state_dict(checkpoint["optimizer"])
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"cannot resume {filename}: its optimiser state does not fit: {error}") from error


def _settings_of(state: dict) -> list[set[str]]:
    """Names of the settings of each parameter group, which differ between types of optimisers; none if there are
    several optimisers."""
    return [group.keys() - {"initial_lr"} for group in state.get("param_groups", ())]
