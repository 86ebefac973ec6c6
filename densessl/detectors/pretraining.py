"""Pretraining of a whole detector of MMDetection on regions of unlabelled images."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from densessl.constraints import Config
from densessl.counting import CountingModel
from densessl.data.batch import Batch
from densessl.detectors.matches import RecordingAssigner, per_region
from densessl.detectors.pretext import Pretext
from densessl.detectors.samples import data_samples
from densessl.errors import SettingError
from densessl.registry import MODELS, PRETEXTS
from densessl.schedules import Horizon
from densessl.version import __version__
from densessl.weights.detector.stock import build, pretraining_model, stock_model
from densessl.weights.io.checkpoints import to_plain
from densessl.weights.load import load_backbone


@MODELS.register_module()
class DetectorPretraining(CountingModel):
    """Any DETR of MMDetection, with its class and parameter names unchanged (``detector.*``), and a pretext task
    (``pretext.*``).

    The losses are those of the detector's head, on regions as boxes of a single class, plus those of the pretext. The
    heads of the released codes have more classes, one of which is "object" (DETReg 91, UP-DETR 2; set
    ``bbox_head.num_classes`` in ``options``). Under autocast the head and all losses are computed in fp32; heads and
    teacher of the pretext run under autocast.

    Figures: ``regions``, the number per image; ``matched``, the share of regions matched to a query (1 unless an image
    has more regions than the detector has queries); ``replaced``, the share of images that had too few regions.

    Args:
        detector: name of a stock config (``"mmdet::detr/detr_r50_8xb2-150e_coco.py"``), or a ``model`` config.
        pretext: config of the pretext task.
        options: changes to the detector's config by dotted name.
        data_preprocessor: config of :class:`densessl.preprocessor.RegionPreprocessor`.
        allow_random_backbone: run with a frozen backbone without weights, to test the setup.
    """

    def __init__(
        self,
        detector: str | Mapping[str, Any],
        pretext: Annotated[Mapping, Config(PRETEXTS)],
        options: Mapping[str, Any] | None = None,
        data_preprocessor: Annotated[dict, Config(MODELS, filled=("photometric",))] | None = None,
        allow_random_backbone: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(data_preprocessor, init_cfg)
        self.allow_random_backbone, self.loaded = allow_random_backbone, False
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "loaded", True))
        self.stock = detector if isinstance(detector, str) else None
        self.options = dict(options or {})
        self.config = pretraining_model(stock_model(detector), options)
        self.detector = build(self.config)
        self.assigner = RecordingAssigner(self.detector.bbox_head.assigner)
        self.detector.bbox_head.assigner = self.assigner
        self.pretext: Pretext = PRETEXTS.build(pretext)
        self.pretext.attach(self.detector)

    def forward(
        self, views, geometry=None, draws=None, keys=None, regions=None, derived=None, bad=(), mode: str = "tensor"
    ):
        """MMEngine's entry: the fields of a :class:`Batch` spread out.

        Args:
            mode: "loss" for the losses; "tensor" for the detector's feature maps of the views.
        """
        if mode == "loss":
            return self.loss(Batch(views, geometry, draws, keys, regions, derived, bad))
        if mode == "tensor":
            return self.detector.extract_feat(views)
        raise ValueError(f"mode is {mode!r}; 'loss' and 'tensor' are known")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of the detector and of the pretext.

        Args:
            batch: the preprocessed batch, with one view and its regions.
        """
        samples = data_samples(batch)
        maps = self.detector.extract_feat(batch.views[0])
        return self.judge(self.transform(maps, samples, batch), samples, batch)

    def judge(self, inputs: dict[str, Any], samples: Sequence, batch: Batch) -> dict[str, Tensor]:
        """Losses and figures from the outputs of the decoder.

        Args:
            inputs: arguments of the head's ``loss``, such as ``hidden_states`` (layers, N, Q, C).
            samples: data samples of the batch.
            batch: the preprocessed batch.
        """
        head = self.detector.bbox_head
        inputs = {name: _full(value) for name, value in inputs.items()}
        with torch.autocast(batch.views[0].device.type, enabled=False):
            # Boxes in pixels and their overlaps need fp32: bf16 resolves a box of 600 pixels to two pixels only.
            losses = head.loss(**inputs, batch_data_samples=samples)
        states = inputs["hidden_states"]
        noise = (inputs.get("dn_meta") or {}).get("num_denoising_queries", 0)
        matches = self.assigner.take(len(states), len(samples))
        rows = [sample.gt_instances.rows for sample in samples]
        count = len(batch.regions.owner)
        losses, share = per_region(losses, matches[-1], count, softmax=not head.loss_cls.use_sigmoid)
        figures = {f"detector.{name}": value.reshape(()) for name, value in losses.items()}  # some are (1,)
        added = self.pretext.losses([state[:, noise:] for state in states], matches, batch, rows)
        figures |= {f"pretext.{name}": value for name, value in added.items()}
        figures |= {"regions": share.new_tensor(count / len(samples)), "matched": share}
        if "replaced" in batch.draws[0]:
            figures["replaced"] = batch.draws[0]["replaced"].mean()
        return figures

    def init_backbone(self, checkpoint: str, branch: str | None = None, resumed: bool = False) -> str:
        """Load the backbone of a file into the detector, unless the run is resumed, and into the frozen networks of the
        pretext. Returns a line for the log.

        Raises:
            densessl.errors.LoadError: the file's network differs; nothing is loaded then.
        """
        self.loaded = True
        if resumed:
            result = "resumed: the weights of the checkpoint are kept"
        else:
            result = str(load_backbone(self.detector.backbone, checkpoint, branch=branch))
        return "; ".join([result, *self.pretext.init_backbone(checkpoint, branch)])

    def begin(self, horizon: Horizon, seed: int = 0) -> None:
        """Called before the first step.

        Raises:
            SettingError: the backbone is frozen and has no weights, or a network of the pretext has none.
        """
        super().begin(horizon, seed)
        if not (self.loaded or self.allow_random_backbone or trains(self.detector.backbone)):
            raise SettingError(
                "the detector's backbone is frozen and has no weights: start from a trained one (densessl train --init "
                "FILE), or set model.allow_random_backbone=True to try the machinery with a random one"
            )
        self.pretext.begin()

    def describe(self) -> dict[str, Any]:
        """The facts that an export needs, as plain data: the stock config and the changes to it."""
        pixels = dict(mean=list(self.data_preprocessor.mean), std=list(self.data_preprocessor.std), channel_order="RGB")
        return dict(
            detector=self.stock,
            options=to_plain(self.options, "model.options"),
            backbone=to_plain(self.config["backbone"], "model.detector.backbone"),
            normalize=pixels,
            version=__version__,
        )

    def transform(self, maps: Sequence[Tensor], samples: Sequence, batch: Batch) -> dict[str, Any]:
        """Run encoder and decoder: ``DetectionTransformer.forward_transformer``, with :meth:`Pretext.queries` before
        the decoder. Returns the arguments of the head's ``loss``."""
        detector = self.detector
        encoder, decoder = detector.pre_transformer(maps, samples)
        memory = detector.forward_encoder(**encoder)
        if hasattr(detector, "dn_query_generator"):
            memory["batch_data_samples"] = samples
        queries, head = detector.pre_decoder(**memory)
        decoder.update(queries)
        with self.pretext.queries(detector, decoder, batch):
            head.update(detector.forward_decoder(**decoder))
        return head

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum to minimise, and the figures to log. All entries with "loss" in their names are losses."""
        total = sum(value for key, value in losses.items() if "loss" in key)
        return total, {"loss": total.detach(), **{key: value.detach() for key, value in losses.items()}}


def trains(module: nn.Module) -> bool:
    """Whether any parameter of the module requires a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _full(value: Any) -> Any:
    """Convert tensors of lower precision to fp32, also inside lists and tuples."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(torch.promote_types(value.dtype, torch.float32))
    return type(value)(map(_full, value)) if isinstance(value, list | tuple) else value
