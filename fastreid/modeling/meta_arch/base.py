"""The contract of a method: everything that the rest of the framework asks of one.

A method is one class. It trains, resumes, evaluates, exports and is checked, profiled and shown by the same
programs as every other, because these know nothing of methods but this file. A plain method overrides
:meth:`MetaArch.encode` and :meth:`MetaArch.losses`; docs/new_method.md builds one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.data import TrainSet
from fastreid.modeling.assets import Asset, pretrained_backbone, starting_weights
from fastreid.modeling.backbones import build_backbone, pretrainable
from fastreid.modeling.heads import build_head
from fastreid.modeling.losses import IdentityLosses
from fastreid.modeling.meta_arch.export import encoder_part
from fastreid.modeling.meta_arch.findings import batch_norm, fresh_start, metric_losses, views_of_identities
from fastreid.modeling.meta_arch.release_format import ReleaseFormat
from fastreid.modeling.meta_arch.results import check_encoded, check_features, check_losses, check_view_names
from fastreid.structures import Batch, DataNames, ExportPart, Finding, Sample, Table, Tensors
from fastreid.utils.errors import UserError

MakeLoader = Callable[[int], Iterable[Batch]]  # from the number of the first iteration
BuildLoader = Callable[[list[Sample]], Iterable[Batch]]  # of these images in order, without augmentation


class ParameterRules(NamedTuple):
    """Rules for a method's parameters, by full names or prefixes of them in its state dict."""

    undecayed: frozenset[str] = frozenset()
    """Full names of parameters without weight decay: those that modules name in `no_weight_decay()`."""
    heads: tuple[str, ...] = ()
    """Prefixes of what counts as a head: SOLVER.HEADS_LR_FACTOR holds."""
    training_only: tuple[str, ...] = ()
    """Prefixes of what training alone reads, such as classifiers: an evaluation goes without, and weights for
    another number of identities are left out."""
    may_start_without: tuple[str, ...] = ("",)
    """Prefixes of what the checkpoint that a training starts from may lack; "": anything."""


class MetaArch(nn.Module, ABC):
    """A backbone, an identity head, and what a method makes of them.

    In training mode it maps a batch to a dict of losses, in eval mode to retrieval features (B, D) float32.

    Args:
        cfg: the configuration, after :meth:`fit_to_data`. Only whole methods see it, parts take plain values.
        names: what the training data calls identities, cameras and views; empty where nobody knows.

    Raises:
        UserError: for a configuration that does not describe a model.
    """

    # ------------------------------------------------------------------ what a class says of itself

    starts_from: ClassVar[tuple[str, ...]] = ()
    """Methods one of whose checkpoints a training needs to start from; empty: it may start afresh."""

    test_labels: ClassVar[frozenset[str]] = frozenset()
    """Labels of a test image that it reads beside the pixels: "camids", "viewids" or both."""

    batch_dependent: ClassVar[bool] = False
    """An image's feature depends on its batch and on those before it: an evaluation encodes each protocol by
    itself, queries before gallery, and there are no exported models and no files of features."""

    packages: ClassVar[frozenset[str]] = frozenset()
    """Requirements that are of use to it, and not to every method."""

    release: ClassVar[ReleaseFormat | None] = None
    """The checkpoints of its authors, for tools/convert_checkpoint.py; None: none are known."""

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Declare the keys that are the method's own, with ``cfg.declare({"MODEL": {…: Key(…)}})``.

        They exist as long as MODEL.META_ARCHITECTURE names the method.
        """

    @classmethod
    def check_config(cls, cfg: CfgNode, training: bool) -> None:
        """Check the rules between keys; each key by itself has been checked.

        Raises:
            UserError: naming the keys.
        """

    @classmethod
    def fit_to_data(cls, cfg: CfgNode, num_classes: int, views: Sequence[str]) -> None:
        """Fill in what the training data decides; `cfg` is changed.

        Args:
            num_classes: identities.
            views: names of the views; empty where they are not known.

        Raises:
            UserError: if `cfg` says something else.
        """
        heads = cfg.MODEL.HEADS
        if 0 < heads.NUM_CLASSES < num_classes:
            raise UserError(
                f"MODEL.HEADS.NUM_CLASSES is {heads.NUM_CLASSES}, but the training data has {num_classes}"
                " identities",
                "set it to 0, which means as many as there are",
            )
        heads.NUM_CLASSES = heads.NUM_CLASSES or num_classes

    @classmethod
    def fit_to_weights(cls, cfg: CfgNode, state: dict[str, Tensor]) -> None:
        """Fill in what the weights of a trained model alone tell; `cfg` is changed."""

    @classmethod
    def assets(cls, cfg: CfgNode, training: bool) -> Iterator[Asset]:
        """Yield the files that a fresh training or an evaluation reads, each with its checks."""
        if not training or cls.starts_from or cfg.MODEL.WEIGHTS:
            yield starting_weights(cls, cfg, training)
        elif cfg.MODEL.BACKBONE.PRETRAIN:
            yield pretrained_backbone(cfg)

    @classmethod
    def checks(cls, cfg: CfgNode, train_set: TrainSet, world_size: int) -> Iterator[Finding]:
        """Yield what a user should know before a training of `train_set` by `world_size` processes."""
        yield from metric_losses(cfg, train_set)
        yield from batch_norm(cfg, world_size)
        yield from fresh_start(cfg)
        yield from views_of_identities(train_set, "what a search across views needs")

    @classmethod
    def memory_advice(cls, cfg: CfgNode) -> list[str]:
        """Return settings of the method's own that save memory in training and are not made."""
        return []

    @classmethod
    def stand_in_assets(cls, cfg: CfgNode, with_weights: bool) -> AbstractContextManager[CfgNode]:
        """Give a configuration that can be built without pretrained files, to count what the model costs.

        Args:
            with_weights: the model will be built with numbers; else on the ``meta`` device.
        """
        return nullcontext(cfg)

    @classmethod
    def prepare_export(cls, cfg: CfgNode) -> None:
        """Switch off what an exported model cannot have, such as compilation; `cfg` is changed."""
        cfg.MODEL.BACKBONE.COMPILE = False

    # ------------------------------------------------------------------------------- the model itself

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__()
        self.cfg = cfg
        self.names = names
        self.backbone = build_backbone(cfg)
        self.heads = build_head(cfg, self.backbone.feat_dim, cfg.MODEL.HEADS.NUM_CLASSES)
        self.identity_losses = IdentityLosses.from_config(cfg)
        if not self.identity_losses.need_classifier:
            self.heads.freeze_classifier()
        for name, values in (("pixel_mean", cfg.MODEL.PIXEL_MEAN), ("pixel_std", cfg.MODEL.PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def pixels(self, batch: Batch) -> Tensor:
        """Return the batch's images (B, 3, H, W) on the model's device, float32, normalised."""
        images = batch["images"].to(self.device, non_blocking=True).float()
        return (images - self.pixel_mean) / self.pixel_std

    def labels(self, batch: Batch, name: str) -> Tensor:
        """Return ``targets``, ``camids`` or ``viewids`` of the batch (B,) int64 on the model's device.

        Raises:
            UserError: if the pictures have none.
        """
        if name not in batch:
            raise UserError(f"{type(self).__name__} reads the {name} of a picture, and these have none")
        return batch[name].to(self.device, non_blocking=True)

    def check_views(self, views: Sequence[str], source: str) -> None:
        """Raise a UserError if the method reads views and one has another number in `source`; warn of new."""
        if "viewids" in self.test_labels:
            check_view_names(type(self).__name__, self.names.views, views, source)

    @abstractmethod
    def encode(self, batch: Batch) -> Any:
        """Map a batch to what losses and features are made of, a NamedTuple whose first field is (B, D)."""

    @abstractmethod
    def losses(self, encoded: Any, batch: Batch) -> dict[str, Tensor]:
        """Return the losses that a training step adds up, scalars by name, each beginning with ``loss_``."""

    def features(self, encoded: Any, batch: Batch, parts: Sequence[str] | None = None) -> Tensor:
        """Return retrieval features (B, D) float32: the chosen parts, in their order; None: all of them."""
        return self.heads(encoded[0]).float()

    def feature_parts(self) -> dict[str, int]:
        """Return the names and widths of the parts of a retrieval feature, in their order."""
        return {"person": self.heads.embedding_dim}

    def view_parts(self) -> list[str]:
        """Return the names of the parts that it generates for a view each, by the views' numbers."""
        return []

    def real_features(self, encoded: Any, batch: Batch) -> Tensor:
        """Return what the parts that it generates are to be like, of the images themselves: (B, W) float32.

        W is the width of each of the :meth:`view_parts`, and the space is theirs: a report looks up whose
        real features lie nearest to a generated one.
        """
        return self.features(encoded, batch, [next(iter(self.feature_parts()))])

    def forward(self, batch: Batch, parts: Sequence[str] | None = None) -> dict[str, Tensor] | Tensor:
        """As the class says; `parts`: see :meth:`features`.

        Raises:
            UserError: if the method's own results are not what this contract says.
        """
        name, encoded = type(self).__name__, self.encode(batch)
        check_encoded(name, encoded)
        if self.training:
            losses = self.losses(encoded, batch)
            check_losses(name, losses)
            return losses
        features, widths = self.features(encoded, batch, parts), self.feature_parts()
        check_features(name, features, {part: widths[part] for part in (widths if parts is None else parts)})
        return features

    # --------------------------------------------------------------------------------------- training

    def load_pretrained(self) -> None:
        """Load what a fresh training starts from beside MODEL.WEIGHTS, which are loaded over it.

        Raises:
            UserError: for a file that does not fit, or a backbone that cannot load any.
        """
        settings = self.cfg.MODEL.BACKBONE
        if settings.PRETRAIN and not self.cfg.MODEL.WEIGHTS:
            pretrainable(self.backbone, settings.NAME).load_pretrained(settings.PRETRAIN_PATH)

    def on_train_start(self, train_set: TrainSet, build_loader: BuildLoader) -> None:
        """Compute, once before a fresh training, what the model needs to know of the training images."""

    def training_batches(
        self, cfg: CfgNode, train_set: TrainSet, make_loader: MakeLoader
    ) -> AbstractContextManager[MakeLoader]:
        """Give what makes the batches of a training, as long as the block runs; by default `make_loader`."""
        return nullcontext(make_loader)

    def parameter_rules(self) -> ParameterRules:
        """Return what holds for parameters by their names."""
        undecayed = {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in self.named_modules()
            if hasattr(module, "no_weight_decay")
            for name in module.no_weight_decay()
        }
        return ParameterRules(frozenset(undecayed), heads=("heads.",), training_only=("heads.weight",))

    def on_evaluation_start(self) -> None:
        """Prepare for the first images of an evaluation, or of one call of `ReIDModel.extract`."""

    # ---------------------------------------------------------------------- export, report, profiling

    def export_parts(self) -> list[ExportPart]:
        """Return what becomes an ONNX file; the first maps images and `test_labels` to encoder outputs."""
        return [encoder_part(self)]

    def export_extras(self) -> dict[str, Tensors]:
        """Return arrays that lie beside the ONNX files, by file name without the ``.npz``."""
        return {}

    def export_noise(self, names: Sequence[str]) -> Any | None:
        """Return the noise that an exported model needs for the pictures of these names; None: none."""
        return None

    def report_tables(self, view_names: Sequence[str]) -> list[Table]:
        """Return tables that a report shows beside those of every method."""
        return []

    def for_counting(self) -> "MetaArch":
        """Return a model whose :meth:`forward` calls every network as often, on tensors without numbers."""
        return self

    def opened_parts(self) -> tuple[str, ...]:
        """Return the children that a profile shows by their own children."""
        return ()

    def count_notes(self, flops: dict[str, int], batch_size: int) -> list[str]:
        """Return lines that a profile adds, once :meth:`for_counting` has counted `flops` by part."""
        return []
