"""Export a pretrained whole detector to two files: its weights, and a config of MMDetection that fine-tunes them.

``NAME.pth``   {"state_dict": {"backbone.conv1.weight": …, "encoder.layers.0.…": …}, "meta": {"fingerprint": {…},
               "detector": {"config": "mmdet::…", "options": {…}, "positional_encoding.offset": …, …}}}
``NAME.py``    the stock config as ``_base_``, the changes that the weights need, and ``densessl.LoadDetectorHook``; a
               config file of the user's own is copied whole, so that the two files can be moved: they need no third
"""

import json
import math
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
from densessl.wording import count

# Options that apply to pretraining only: fine-tuning uses the stock config's.
OWN = ("backbone.frozen_stages", "backbone.norm_eval", "backbone.init_cfg", "bbox_head.num_classes", "bbox_head.loss_")
OWN += ("train_cfg", "test_cfg", "data_preprocessor")
LOADERS = ("LoadBackboneHook", "LoadDetectorHook")


def export_detector(source: Source, out: str | Path, detector: str | None = None) -> LoadReport:
    """Write ``OUT.pth`` and ``OUT.py``, after checking that the detector of that config loads every tensor.

    Args:
        source: A checkpoint of a pretraining, or a dict with its content.
        out: Name of the two files, with or without ``.pth``; the folder is created.
        detector: The detector's config, needed if the pretraining had its ``model`` as a dict or from a config file of
            the user's own: a file that a checkpoint names is never run.

    Returns:
        The load report that fine-tuning will give: what is loaded and what is new.

    Raises:
        ExportError: The source is no checkpoint of a detector, names no config, or has tensors that are not finite.
        UnsafeCheckpointError: Its config is no stock config, or its options are not plain data for it.
        LoadError: The detector of that config does not load the weights. Nothing was written.
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
    backbone = fp.of_state(_backbone(state), described.get("backbone"), described.get("normalize"))
    depth = backbone.depth or fp.of_model(trained.backbone).depth  # tensors of three stages do not show the depth
    return write_detector(out, state, config, options, replace(backbone, depth=depth), facts_of_detector(trained))


def write_detector(
    out: str | Path,
    state: Mapping[str, Tensor],
    config: str,
    options: Mapping[str, Any],
    backbone: fp.Fingerprint,
    facts: Mapping[str, Any] | None = None,
    meta: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Load weights into the detector of a config with options, as a check, and write both files.

    Args:
        out: As for :func:`export_detector`.
        state: Tensors by MMDetection's names.
        config: ``mmdet::NAME``, or a file.
        options: Changes to its ``model`` by dotted name.
        backbone: Fingerprint of the backbone.
        facts: Facts of the detector that the weights come from; None to take those of config and options.
        meta: Further entries of the file's ``meta``.

    Raises:
        ExportError: A tensor is not finite.
        LoadError: The detector does not load the weights. Nothing was written.
    """
    diverged = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if diverged:
        raise ExportError(f"NaN or infinity in {count(len(diverged), 'tensor')}, first {diverged[0]!r}")
    out = Path(out)
    out = out.with_suffix("") if out.suffix in (".pth", ".py") else out
    text = config_text(out.name, config, options)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder, "trial.py")
        trial.write_text(text, encoding="utf-8")
        model = build_detector(str(trial))
    detector = dict(config=config, options=dict(options), **(facts or facts_of_detector(model)))
    header = {
        **(meta or {}),
        "densessl_version": __version__,
        "fingerprint": backbone.to_dict(),
        "detector": detector,
    }
    # Copies: a tensor that is a view would drag its whole storage into the file.
    content = {"state_dict": {key: value.detach().cpu().clone() for key, value in state.items()}, "meta": header}
    report = load_detector(model, content)
    report.source = f"{out}.pth"
    save_checkpoint(f"{out}.pth", content)
    Path(f"{out}.py").write_text(text, encoding="utf-8")
    return report


def config_text(name: str, config: str, options: Mapping[str, Any]) -> str:
    """Return the text of the config that fine-tunes ``name.pth`` in the same folder, whichever folder that is.

    Args:
        name: Name of the files without suffix.
        config: ``mmdet::NAME``, which becomes its ``_base_``, or a file, which is copied into it.
        options: Changes to its ``model`` by dotted name.
    """
    head = f'"""Fine-tunes {name}.pth: densessl train {name}.py --data-root …"""\n\n'
    if "::" in config:
        return head + _changes(name, config, options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "whole.py")
        file.write_text(_changes(name, str(Path(config).resolve()), options), encoding="utf-8")
        whole = load_config(str(file))
    whole.custom_hooks[-1].checkpoint = _beside(name)
    return head + whole.pretty_text


def _beside(name: str) -> str:
    """Return the path of the weights in the config's own folder, in MMEngine's syntax."""
    return f"{{{{ fileDirname }}}}/{name}.pth"


def _changes(name: str, config: str, options: Mapping[str, Any]) -> str:
    """Return the text of a config that inherits another."""
    base = load_config(config)
    kept = [*(base.get("custom_imports") or {}).get("imports", [])]
    own = "densessl." in str(options.get("type", ""))
    imports = list(dict.fromkeys([*kept, "densessl.compat", "densessl.finetune", *["densessl.detectors"] * own]))
    # The hooks of the base stay, except one that would load other weights first.
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
    """Return the entry of a config with that dotted name; None if there is none."""
    for part in key.split("."):
        model = model.get(part) if isinstance(model, Mapping) else None
    return model


def _code(value: Any) -> str:
    """Return a plain value as Python code, with dicts as ``dict(key=value)`` if their keys allow it."""
    if isinstance(value, Mapping) and all(isinstance(key, str) and key.isidentifier() for key in value):
        return f"dict({', '.join(f'{key}={_code(entry)}' for key, entry in value.items())})"
    if isinstance(value, list):
        return f"[{', '.join(map(_code, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
