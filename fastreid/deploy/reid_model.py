"""A trained model in a line of Python: pictures in, features out."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from fastreid.config import CfgNode, check_config, get_cfg
from fastreid.data.datasets import open_dataset
from fastreid.data.datasets.base import joint_view_names
from fastreid.data.loaders import ReIDLoader, loader_options
from fastreid.deploy.pictures import Picture, PictureSet, as_pictures
from fastreid.engine.trained_model import load_trained_model
from fastreid.evaluation import extract_features
from fastreid.modeling.assets import check_assets
from fastreid.utils.amp import amp_dtype
from fastreid.utils.checkpoint import load_checkpoint
from fastreid.utils.env import preserved_rng_state
from fastreid.utils.errors import UserError, nearest_name

logger = logging.getLogger(__name__)

Views = Sequence[str | int] | str | int | None


class ReIDModel:
    """A trained model of either stage that turns pictures into retrieval features.

    ::

        from fastreid import ReIDModel

        model = ReIDModel.from_checkpoint("logs/demo/stage1/model_best.pth")
        features = model.extract(["a.jpg", "b.jpg"])

    Attributes:
        cfg: the configuration, frozen.
        model: the torch module, in eval mode.
        device: where it computes.
    """

    def __init__(self, cfg: CfgNode, checkpoint: dict[str, Any] | None = None) -> None:
        """The model of `cfg`, whose MODEL.WEIGHTS (or `checkpoint`, its content) has the weights."""
        check_config(cfg, training=False)
        check_assets(cfg, training=False)
        self.cfg = cfg.clone()
        self.cfg.freeze()
        with preserved_rng_state():  # the weights are initialised before they are loaded
            self.model = load_trained_model(self.cfg, checkpoint)
        self.device: torch.device = self.model.device

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        config: str | os.PathLike | CfgNode | None = None,
        device: str = "auto",
        options: Sequence[str] = (),
    ) -> "ReIDModel":
        """The model of a checkpoint that training wrote.

        Args:
            path: such as ``logs/demo/stage2/model_best.pth``.
            config: a YAML file or a configuration. None: ``config.yaml`` beside the checkpoint, else the
                configuration that training stored in the checkpoint.
            device: ``auto`` (CUDA when there is one), ``cpu``, ``cuda`` or ``cuda:N``.
            options: ``["KEY", "VALUE", …]`` that win over the configuration, such as
                ``["TEST.FLIP.ENABLED", "True"]``.

        Raises:
            UserError: for a checkpoint or configuration that cannot be used, or without a configuration.
        """
        checkpoint = load_checkpoint(path)
        cfg = _config_of(Path(path), config, checkpoint["meta"])
        cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = str(path), device
        cfg.merge_from_list(list(options))
        return cls(cfg, checkpoint)

    @property
    def stage(self) -> int:
        """1, or 2 for a model that generates views."""
        return self.model.stage

    @property
    def view_names(self) -> tuple[str, ...]:
        """What the view indices 0 … V-1 stand for, as the training data names them."""
        data = self.cfg.DATASETS
        return joint_view_names(open_dataset(name, data.ROOT, data.CSV) for name in data.NAMES)

    def extract(
        self, pictures: Picture | Iterable[Picture], views: Views = None, skip_bad: bool = False
    ) -> np.ndarray:
        """The retrieval features that an evaluation computes for these pictures, not normalised.

        Decoding, resizing, ``TEST.FLIP``, ``TEST.AMP`` and the batch size are the configuration's. A row
        depends on its picture alone, to within the rounding of float32: not on the others or their order.

        Args:
            pictures: one picture or several: paths, PIL images, uint8 RGB arrays (H, W, 3), tensors
                (3, H, W) RGB of uint8 or of floats from 0 to 1. Pictures in memory are resized from the size
                they have; a large JPEG *file* is decoded at a smaller one, which is not quite the same.
            views: the views whose generated features a Stage-2 model joins to the person's: names or
                indices, in this order; None: all of them, as in an evaluation; []: the person feature
                alone. The others are not computed. With Stage 1 only None and [] make sense.
            skip_bad: give a picture file that cannot be read a row of NaN, with a warning that counts them,
                instead of stopping.

        With ``TEST.SDMODEL.NOISE per_image`` a picture's noise comes from its file's name. Arrays, tensors
        and PIL images that were not opened from a file have none: they all get the noise of the empty name,
        so that their features, too, depend neither on the order nor on what else is in the batch.

        Returns:
            (N, D) float32, a row for each picture in their order; N is 1 for a single one.

        Raises:
            UserError: for an unknown view, a file that cannot be read, or what is no picture.
        """
        pictures, chosen = as_pictures(pictures), self.view_indices(views)
        if not pictures:
            return np.empty((0, self.feature_width(chosen)), np.float32)
        images = PictureSet(self.cfg, pictures, skip_bad)
        options = loader_options(self._loader_cfg(pictures))
        loader = ReIDLoader(images, batch_size=self.cfg.TEST.IMS_PER_BATCH, **options)
        model = self.model if self.stage == 1 else _WithViews(self.model, chosen)
        amp = amp_dtype(self.cfg.TEST.AMP, self.device)
        benchmark = self.cfg.CUDNN_BENCHMARK
        with torch.backends.cudnn.flags(enabled=True, benchmark=benchmark, deterministic=not benchmark):
            features = extract_features(model, loader, self.cfg.TEST.FLIP.ENABLED, amp).numpy()
        if bad := images.bad_rows:
            features[bad] = np.nan
            logger.warning(
                "%d of %d pictures cannot be read, first %s: their features are NaN",
                len(bad),
                len(images),
                images.names[bad[0]],
            )
        return features

    def view_indices(self, views: Views) -> list[int] | None:
        """`views` of :meth:`extract` as indices; None stays None.

        Raises:
            UserError: for an unknown or repeated view, or any view of a Stage-1 model.
        """
        if views is None:
            return None
        views = [views] if isinstance(views, str | int) else list(views)
        if views and self.stage == 1:
            raise UserError(f"views {views}: a Stage-1 model generates none", "leave them out")
        indices = [self._view_index(view) for view in views]
        if len(set(indices)) < len(indices):
            raise UserError(f"views {views} name a view twice")
        return indices

    def feature_width(self, views: list[int] | None) -> int:
        """D, the numbers of a feature with these views (indices; None: all)."""
        width = self.cfg.MODEL.BACKBONE.FEAT_DIM
        person = self.cfg.MODEL.HEADS.EMBEDDING_DIM or width
        if self.stage == 1:
            return person
        generated = person if self.cfg.TEST.SDMODEL.GENERATED_NECK else width
        count = self.cfg.MODEL.SDMODEL.VIEW_NUM if views is None else len(views)
        return person + count * generated

    def _view_index(self, view: str | int) -> int:
        count = self.cfg.MODEL.SDMODEL.VIEW_NUM
        if not isinstance(view, str):
            if view not in range(count):
                raise UserError(f"view {view}: this model has views 0 to {count - 1}")
            return int(view)
        names = self.view_names
        if view not in names[:count]:
            near = nearest_name(view, list(names))
            raise UserError(f"unknown view {view!r}.{near} This model has {', '.join(names[:count])}")
        return names.index(view)

    def _loader_cfg(self, pictures: list[Picture]) -> CfgNode:
        """Without worker processes where they take longer than the work: for one batch, and for pixels."""
        cfg = self.cfg.clone()
        in_memory = not all(isinstance(picture, str | os.PathLike) for picture in pictures)
        if in_memory or len(pictures) <= cfg.TEST.IMS_PER_BATCH:
            cfg.defrost()
            cfg.DATALOADER.NUM_WORKERS = 0
        return cfg


class _WithViews(nn.Module):
    """A Stage-2 model that generates `views` only."""

    def __init__(self, model: nn.Module, views: list[int] | None) -> None:
        super().__init__()
        self.model, self.views = model, views

    def forward(self, batch: dict) -> Tensor:
        return self.model(batch, self.views)


def _config_of(path: Path, config: str | os.PathLike | CfgNode | None, meta: dict[str, Any]) -> CfgNode:
    """A mutable configuration for the checkpoint at `path` with that `meta`; see `from_checkpoint`."""
    if isinstance(config, CfgNode):
        cfg = config.clone()
        cfg.defrost()
        return cfg
    cfg, beside = get_cfg(), path.with_name("config.yaml")
    if config is not None:
        cfg.merge_from_file(config)
    elif beside.is_file():
        cfg.merge_from_file(beside)
    elif meta.get("config"):
        cfg.merge_values(yaml.safe_load(meta["config"]), source=f"stored in {path}")
    else:
        raise UserError(
            f"no configuration for {path}: there is no {beside}, and the checkpoint holds none",
            "name the YAML file that it was trained with",
        )
    return cfg
