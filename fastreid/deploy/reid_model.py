"""A trained model in a line of Python: pictures in, features out."""

import logging
import os
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fastreid.config import CfgNode, check_config
from fastreid.data.loaders import ReIDLoader, loader_options
from fastreid.deploy.labels import Names, as_list, dataset_views, label_values, number_of
from fastreid.deploy.pictures import Picture, PictureSet, as_pictures
from fastreid.engine.trained_model import find_checkpoint, load_trained_model, trained_config
from fastreid.evaluation import extract_features
from fastreid.evaluation.distance import normalise
from fastreid.modeling import MetaArch, check_assets
from fastreid.structures import Batch
from fastreid.utils.env import amp_dtype, cudnn_kernels, preserved_rng_state
from fastreid.utils.errors import UserError, nearest_name

logger = logging.getLogger(__name__)


class ReIDModel:
    """A trained model of any method that turns pictures into retrieval features.

    ::

        from fastreid import ReIDModel

        model = ReIDModel.from_checkpoint("logs/demo/stage1")
        features = model.extract(["a.jpg", "b.jpg"])

    Attributes:
        cfg: the configuration, frozen.
        model: the torch module, in eval mode.
        method: the name of its method.
        device: where it computes.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """Load the model of `cfg`, whose MODEL.WEIGHTS has the weights."""
        check_config(cfg, training=False)
        check_assets(cfg, training=False)
        self.cfg = cfg.clone()
        self.cfg.freeze()
        with preserved_rng_state():  # the weights are initialised before they are loaded
            self.model: MetaArch = load_trained_model(self.cfg)
        self.method = type(self.model).__name__
        self.device: torch.device = self.model.device

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike,
        config: str | os.PathLike | CfgNode | None = None,
        device: str = "auto",
        options: Sequence[str] = (),
        imports: Sequence[str] = (),
    ) -> "ReIDModel":
        """Load the model of a checkpoint that training wrote.

        Args:
            path: such as ``logs/demo/stage2/model_best.pth``, or the folder of a run: its
                ``model_best.pth``, else its ``model_final.pth``.
            config: a YAML file or a configuration. None: ``config.yaml`` beside the checkpoint, else the
                configuration that training stored in the checkpoint.
            device: ``auto`` (CUDA when there is one), ``cpu``, ``cuda`` or ``cuda:N``.
            options: ``["KEY", "VALUE", …]`` that win over the configuration, such as
                ``["TEST.FLIP.ENABLED", "True"]``.
            imports: modules or .py files of yours that may be imported for the model. Those that only the
                configuration beside or in the checkpoint names are not.

        Raises:
            UserError: for a checkpoint or configuration that cannot be used, or without a configuration.
        """
        options = ["MODEL.DEVICE", device, *options]
        if not isinstance(config, CfgNode):
            return cls(trained_config(path, config, options, imports))
        cfg = config.clone()
        cfg.defrost()
        cfg.merge_from_list(["MODEL.WEIGHTS", str(find_checkpoint(path)), *options])
        return cls(cfg)

    @property
    def view_names(self) -> tuple[str, ...]:
        """The names of the views 0 … V-1 in the data that the model was trained on.

        A checkpoint from before they had them is taken to be of the views that DATASETS.NAMES has now.
        """
        return self.model.names.views or dataset_views(self.cfg)

    def extract(
        self,
        pictures: Picture | Iterable[Picture],
        views: Names = None,
        skip_bad: bool = False,
        cameras: Names = None,
        parts: Sequence[str] | None = None,
        normalize: bool = False,
    ) -> np.ndarray:
        """Compute the retrieval features that an evaluation computes for these pictures.

        Decoding, resizing, ``TEST.FLIP``, ``TEST.AMP`` and the batch size are the configuration's. A row
        depends on its picture alone, to within the rounding of float32: not on the others or their order,
        unless the method says so (``model.batch_dependent``).
        Noise that a method draws by a file's name is that of the empty name for pictures without a file.

        Args:
            pictures: one picture or several: paths, the bytes of picture files, binary file objects (read
                from their beginning), PIL images, RGB arrays (H, W, 3), grey arrays (H, W), RGB tensors
                (3, H, W); arrays and tensors of uint8 or of floats from 0 to 1. Pixels in memory are resized
                from the size they have; a large JPEG *file* is decoded at a smaller one, which is not quite
                the same.
            views: names or indices. For a model that reads the pictures' views: the view of each picture.
                For others: the views whose generated features are joined to the person's, in this order;
                None: all of them, as in an evaluation; []: the person feature alone. The others are not
                computed. With a model that generates none only None and [] make sense.
            skip_bad: give a picture file that cannot be read a row of NaN, with a warning that counts them,
                instead of stopping.
            cameras: the camera of each picture, for a model that reads them: ids, or names as the training
                data has them.
            parts: names of the feature's parts (``model.feature_parts()``) to compute, in this order; None:
                all of them.
            normalize: divide each row, all of its parts together, by its Euclidean length, so that products
                of rows are the cosine similarities that ``TEST.METRIC cosine`` and a search compare. The
                parts keep their lengths relative to each other. False: as they are, of any length.

        Returns:
            (N, D) float32, a row for each picture in their order; N is 1 for a single one.

        Raises:
            UserError: for an unknown view, camera or part, labels that the model reads and that are missing
                or that it does not read, a file that cannot be read, or what is no picture.
        """
        pictures = as_pictures(pictures)
        reads_views = "viewids" in self.model.test_labels
        labels = self._labels(len(pictures), cameras, views if reads_views else None)
        chosen = self.part_names(None if reads_views else views, parts)
        if not pictures:
            return np.empty((0, self.feature_width(chosen)), np.float32)
        features = self._compute(PictureSet(self.cfg, pictures, skip_bad, labels), chosen)
        return (normalise(features) if normalize else features).numpy()

    def part_names(self, views: Names = None, parts: Sequence[str] | None = None) -> list[str]:
        """Return the names of the feature's parts that these `views` or `parts` of :meth:`extract` mean.

        Views mean the parts that are generated for them, after those that belong to none.

        Raises:
            UserError: for an unknown or repeated one, both at once, or a view where none is generated.
        """
        known = list(self.model.feature_parts())
        if views is not None:
            if parts is not None:
                raise UserError("both views and parts of the feature are given", "give one of them")
            generated = self.model.view_parts()
            if as_list(views) and not generated:
                raise UserError(f"views {views}: {self.method} generates none", "leave them out")
            numbers = [self._view_number(view, len(generated)) for view in as_list(views)]
            own = [name for name in known if name not in generated]
            parts = [*own, *(generated[number] for number in numbers)]
        chosen = known if parts is None else as_list(parts)
        for name in chosen:
            if name not in known:
                near = nearest_name(str(name), known)
                raise UserError(f"unknown part {name!r} of the feature.{near} It has {', '.join(known)}")
        if len(set(chosen)) < len(chosen) or not chosen:
            raise UserError(f"parts {chosen} of the feature: expected each once, and at least one")
        return chosen

    def feature_width(self, parts: Sequence[str] | None = None) -> int:
        """Return D, the numbers of a feature with these parts; None: all."""
        widths = self.model.feature_parts()
        return sum(widths[name] for name in (widths if parts is None else parts))

    def _compute(self, images: PictureSet, parts: list[str]) -> torch.Tensor:
        batch_size, options = self.cfg.TEST.IMS_PER_BATCH, loader_options(self.cfg)
        if images.in_memory or len(images) <= batch_size:
            options["num_workers"] = 0  # processes would take longer than the work
        loader = ReIDLoader(images, batch_size=batch_size, **options)
        amp = amp_dtype(self.cfg.TEST.AMP, self.device)
        with cudnn_kernels(self.cfg.CUDNN_BENCHMARK):
            self.model.on_evaluation_start()
            model = _WithParts(self.model, parts)
            features = extract_features(model, loader, self.cfg.TEST.FLIP.ENABLED, amp)
        if bad := images.bad_rows:
            features[bad] = torch.nan
            message = "%d of %d pictures cannot be read, first %s: their features are NaN"
            logger.warning(message, len(bad), len(images), images.names[bad[0]])
        return features

    def _labels(self, count: int, cameras: Names, views: Names) -> dict[str, list[int]]:
        given = {"camids": cameras, "viewids": views}
        values = label_values(self.method, self.model.test_labels, count, given)
        known = self.model.names.cameras
        labels = {
            "camids": [number_of("camera", camera, known) for camera in values.get("camids", ())],
            "viewids": [self._view_number(view) for view in values.get("viewids", ())],
        }
        return {label: labels[label] for label in values}

    def _view_number(self, view: str | int, count: int | None = None) -> int:
        """Return the number of one of the first `count` views; None: of those that have names."""
        if count is not None and not isinstance(view, str):
            return number_of("view", view, dict.fromkeys(range(count), ""))
        return number_of("view", view, dict(enumerate(self.view_names[:count])))


class _WithParts(nn.Module):
    """A model that computes some parts of its feature only."""

    def __init__(self, model: MetaArch, parts: list[str]) -> None:
        super().__init__()
        self.model, self.parts = model, parts

    def forward(self, batch: Batch) -> Tensor:
        return self.model(batch, self.parts)
