"""Child registries of MMEngine under the scope ``densessl``.

Every name this library registers lives in its own scope, because generic names (``GaussianBlur``, ``LARS``) collide
with those other packages register upstream. Configs set ``default_scope = "densessl"``.
"""

import mmengine.registry as mmengine
from mmengine.registry import Registry

from densessl import quiet  # noqa: F401  before anything imports MMDetection

SCOPE = "densessl"


def _child(name: str, parent: Registry | None, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope=SCOPE, locations=[f"densessl.{place}" for place in locations])


MODELS = _child("model", mmengine.MODELS, "branches", "model", "preprocessor")
OBJECTIVES = _child("objective", None, "objectives")
CORRESPONDENCES = _child("correspondence", None, "correspondence")
AUGMENTATIONS = _child("augmentation", None, "augment")
REGIONS = _child("region source", None, "regions")
REGION_GENERATORS = _child("region generator", None, "regions")
REGION_SELECTIONS = _child("region selection", None, "regions")
# Found once densessl.detectors is imported, which imports mmdet: `custom_imports` of the configs does.
PRETEXTS = _child("pretext", None)
DATASETS = _child("dataset", mmengine.DATASETS, "data")
DATA_SAMPLERS = _child("data sampler", mmengine.DATA_SAMPLERS, "data")
TRANSFORMS = _child("transform", mmengine.TRANSFORMS, "finetune.reading")
FUNCTIONS = _child("function", mmengine.FUNCTIONS, "data")
HOOKS = _child("hook", mmengine.HOOKS, "engine", "finetune")
LOOPS = _child("loop", mmengine.LOOPS, "engine")
OPTIMIZERS = _child("optimizer", mmengine.OPTIMIZERS, "engine")
OPTIM_WRAPPERS = _child("optim_wrapper", mmengine.OPTIM_WRAPPERS, "engine")
OPTIM_WRAPPER_CONSTRUCTORS = _child("optimizer wrapper constructor", mmengine.OPTIM_WRAPPER_CONSTRUCTORS, "engine")
RUNNERS = _child("runner", mmengine.RUNNERS, "engine")
VISBACKENDS = _child("vis_backend", mmengine.VISBACKENDS, "engine")
# Nothing of ours is in these; without them MMEngine warns that it had to leave the scope to find its own.
LOG_PROCESSORS = _child("log_processor", mmengine.LOG_PROCESSORS)
PARAM_SCHEDULERS = _child("parameter scheduler", mmengine.PARAM_SCHEDULERS)
MODEL_WRAPPERS = _child("model_wrapper", mmengine.MODEL_WRAPPERS)
VISUALIZERS = _child("visualizer", mmengine.VISUALIZERS)
