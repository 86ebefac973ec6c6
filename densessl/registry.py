"""Child registries of MMEngine under the scope ``densessl``.

Every name this library registers lives in its own scope, because generic names (``GaussianBlur``, ``LARS``) collide
with those other packages register upstream. Configs set ``default_scope = "densessl"``.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import OPTIMIZERS as MMENGINE_OPTIMIZERS
from mmengine.registry import RUNNERS as MMENGINE_RUNNERS
from mmengine.registry import VISBACKENDS as MMENGINE_VISBACKENDS
from mmengine.registry import Registry

SCOPE = "densessl"


def _child(name: str, parent: Registry | None, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope=SCOPE, locations=[f"densessl.{place}" for place in locations])


MODELS = _child("model", MMENGINE_MODELS, "branches", "model")
OBJECTIVES = _child("objective", None, "objectives")
AUGMENTATIONS = _child("augmentation", None, "augment")
DATASETS = _child("dataset", MMENGINE_DATASETS, "data")
DATA_SAMPLERS = _child("data sampler", MMENGINE_DATA_SAMPLERS, "data")
FUNCTIONS = _child("function", MMENGINE_FUNCTIONS, "data")
HOOKS = _child("hook", MMENGINE_HOOKS, "engine")
LOOPS = _child("loop", MMENGINE_LOOPS, "engine")
OPTIMIZERS = _child("optimizer", MMENGINE_OPTIMIZERS, "engine")
OPTIM_WRAPPERS = _child("optim_wrapper", MMENGINE_OPTIM_WRAPPERS, "engine")
OPTIM_WRAPPER_CONSTRUCTORS = _child("optimizer wrapper constructor", MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS, "engine")
RUNNERS = _child("runner", MMENGINE_RUNNERS, "engine")
VISBACKENDS = _child("vis_backend", MMENGINE_VISBACKENDS, "engine")
