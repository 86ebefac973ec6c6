"""From a pretraining of a whole detector to two files: its weights, and a config of MMDetection that fine-tunes them.

``NAME.pth``   {"state_dict": {"backbone.conv1.weight": …, "encoder.layers.0.…": …}, "meta": {"fingerprint": {…},
               "detector": {"config": "mmdet::…", "options": {…}, "positional_encoding.offset": …, …}}}
``NAME.py``    the stock config as ``_base_``, what the weights need of it, and ``densessl.LoadDetectorHook``; of a
               config of one's own the whole, so that the two files can be moved: they need no third
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from densessl.configs import load_config
from densessl.errors import ExportError
from densessl.version import __version__
from densessl.weights import fingerprint as fp
from densessl.weights.detector.load import detector_state, facts_of_detector, load_detector
from densessl.weights.detector.stock import build_detector, pretraining_model, stock_model
from densessl.weights.file_configs import building, checked_options, stock_name
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.load_report import LoadReport
from densessl.weights.read import Source, open_checkpoint, part_configs

# Options of a pretraining that are its own affair: fine-tuning goes back to the stock config.
OWN = ("backbone.frozen_stages", "backbone.norm_eval", "backbone.init_cfg", "bbox_head.num_classes", "bbox_head.loss_")
OWN += ("train_cfg", "test_cfg", "data_preprocessor")
LOADERS = ("LoadBackboneHook", "LoadDetectorHook")


def export_detector(source: Source, out: str | Path, detector: str | None = None) -> LoadReport:
    """Write ``OUT.pth`` and ``OUT.py``, once the detector of that config has taken every tensor.

    Args:
        source: A checkpoint of a pretraining, or a dict like one.
        out: Their name, with or without ``.pth``; the folder is made.
        detector: The config, where the pretraining was given its ``model`` as a dict or by a file of one's own: no file
            that a checkpoint names is run.

    Returns:
        What fine-tuning will report: what is loaded and what is new.

    Raises:
        ExportError: It is no checkpoint of a detector, tells no config, or has tensors that are not finite.
        UnsafeCheckpointError: Its config is no stock config, or its options are more than plain data for it.
        LoadError: The detector of that config does not take the weights. Nothing is written then.
    """
    source = open_checkpoint(source)
    described = part_configs(source.meta)
    if "detector" not in described or not any(key.startswith("detector.") for key in source.state):
        raise ExportError(
            f"{source.name} holds no pretrained detector: expected tensors named 'detector.*' and meta['densessl'], "
            f"found {sorted(source.state)[:3]}"
        )
    if detector is None and described["detector"] is None:
        raise ExportError(
            f"{source.name}: model.detector was given as a dict; say which config fine-tunes it "
            "(--detector mmdet::NAME, or a file)"
        )
    config = detector or stock_name(described["detector"], source.name)
    stock = stock_model(config)
    changes = checked_options(described.get("options") or {}, source.name, stock)
    with building(source.name):
        trained = build_detector(pretraining_model(stock, changes))
    state = detector_state(source)
    options = {key: value for key, value in changes.items() if not key.startswith(OWN)}
    told = fp.of_state(_backbone(state), described.get("backbone"), described.get("normalize"))
    told = replace(told, depth=told.depth or fp.of_model(trained.backbone).depth)  # three stages are too few to count
    return write_detector(out, state, config, options, told, facts_of_detector(trained))


def write_detector(
    out: str | Path,
    state: Mapping[str, Tensor],
    config: str,
    options: Mapping[str, Any],
    backbone: fp.Fingerprint,
    facts: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Try weights in the detector of a config with options, and write both files.

    Args:
        out: As of :func:`export_detector`.
        state: By MMDetection's names.
        config: ``mmdet::NAME``, or a file.
        options: Changes to its ``model`` by dotted name.
        backbone: Its fingerprint.
        facts: Of the detector the weights come from; None where that of config and options is known to be it.
        meta: More to keep.
    """
    diverged = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if diverged:
        raise ExportError(f"{len(diverged)} tensors hold NaN or infinity, first {diverged[0]!r}")
    out = Path(out)
    out = out.with_suffix("") if out.suffix in (".pth", ".py") else out
    text = config_text(out.name, config, options)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, "trial.py")
        trial.write_text(text, encoding="utf-8")
        model = build_detector(str(trial))
    told = dict(config=config, options=dict(options), **(facts or facts_of_detector(model)))
    header = {
        **(meta or {}),
        "densessl_version": __version__,
        "fingerprint": backbone.to_dict(),
        "detector": told,
    }
    # Copies: a tensor that is a view would drag its whole storage into the file.
    content = {"state_dict": {key: value.detach().cpu().clone() for key, value in state.items()}, "meta": header}
    report = load_detector(model, content)
    report.source = f"{out}.pth"
    save_checkpoint(f"{out}.pth", content)
    Path(f"{out}.py").write_text(text, encoding="utf-8")
    return report


def config_text(name: str, config: str, options: Mapping[str, Any]) -> str:
    """The config that fine-tunes ``name.pth`` beside it, wherever the two lie and it is called from.

    Args:
        name: Without suffix.
        config: ``mmdet::NAME``, which becomes its ``_base_``, or a file, which is written out.
        options: Changes to its ``model`` by dotted name.
    """
    head = f'"""Fine-tunes {name}.pth: python tools/train.py {name}.py --data-root …"""\n\n'
    if "::" in config:
        return head + _changes(name, config, options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "whole.py")
        file.write_text(_changes(name, str(Path(config).resolve()), options), encoding="utf-8")
        whole = load_config(str(file))
    whole.custom_hooks[-1].checkpoint = _beside(name)
    return head + whole.pretty_text


def _beside(name: str) -> str:
    """What MMEngine reads as the weights in the config's own folder."""
    return f"{{{{ fileDirname }}}}/{name}.pth"


def _changes(name: str, config: str, options: Mapping[str, Any]) -> str:
    """A config based on another, as text."""
    base = load_config(config)
    kept = [*(base.get("custom_imports") or {}).get("imports", [])]
    own = "densessl." in str(options.get("type", ""))
    imports = list(dict.fromkeys([*kept, "densessl.compat", "densessl.finetune", *["densessl.detectors"] * own]))
    # Its own hooks stay, but for one that would load something else first.
    others = [not str(hook["type"]).endswith(LOADERS) for hook in base.get("custom_hooks") or ()]
    hooks = "".join(f"_base_.custom_hooks[{number}], " for number, other in enumerate(others) if other)
    model: dict[str, Any] = {"backbone": {"init_cfg": None}}
    for key, value in options.items():
        *path, last = key.split(".")
        node = model
        for part in path:
            node = node.setdefault(part, {})
        replaces = isinstance(value, Mapping) and isinstance(entry_at(base.model, key), Mapping)
        node[last] = {**value, "_delete_": True} if replaces else value
    return f'''_base_ = {_code(config)}

custom_imports = dict(imports={_code(imports)}, allow_failed_imports=False)
custom_hooks = [{hooks}dict(type="densessl.LoadDetectorHook", checkpoint="{_beside(name)}")]

model = dict(
{"".join(f"    {key}={_code(value)},{chr(10)}" for key, value in model.items())})
'''


def entry_at(model: Mapping[str, Any], key: str) -> Any:
    """The entry of a config with that dotted name; None where there is none."""
    for part in key.split("."):
        model = model.get(part) if isinstance(model, Mapping) else None
    return model


def _code(value: Any) -> str:
    """A plain value as Python, dicts by ``dict(key=value)`` where they can be."""
    if isinstance(value, Mapping) and all(isinstance(key, str) and key.isidentifier() for key in value):
        return f"dict({', '.join(f'{key}={_code(entry)}' for key, entry in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_code, value))}]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
