"""Images as a torch dataset: read, transformed and labelled one by one."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch.utils.data import Dataset

from fastreid.config import CfgNode
from fastreid.data.bad_images import Replacements
from fastreid.data.images import read_image
from fastreid.data.transforms import Transform, build_transforms
from fastreid.structures import Sample
from fastreid.utils.errors import UserError


class ReportingSet(Dataset):
    """A dataset whose errors cross from a worker process to the loader in one piece."""

    def __init__(self) -> None:
        self.replaced: Counter[str] = Counter()  # path -> its ``bad_images`` in the batches consumed so far

    def __getitems__(self, indices: Sequence[Any]) -> list[dict[str, Any] | UserError]:
        """Return a batch's items, as torch's loaders ask for them, or the `UserError` that one raised."""
        try:
            return [self[index] for index in indices]
        except UserError as error:
            return [error]


class ImageSet(ReportingSet):
    """Samples as they are read and transformed, one dict each (see :meth:`__getitem__`).

    Args:
        samples: the images.
        transform: of uint8 (3, H, W) RGB.
        size: (height, width) that it makes of them: a large JPEG file is decoded at a smaller size.
        may_skip: whether the error for an image that cannot be read offers ``DATALOADER.ON_BAD_IMAGE`` skip.
        replacements: chooses another image, of the same identity if one can be read, that stands in for
            one that cannot; its item is the other image's, labels and path included. None: it is an error.
    """

    def __init__(
        self,
        samples: list[Sample],
        transform: Transform,
        size: tuple[int, int],
        may_skip: bool = False,
        replacements: Replacements | None = None,
    ) -> None:
        super().__init__()
        self.samples = samples
        self._transform = transform
        self._size = size
        self._may_skip = may_skip
        self._replacements = replacements

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return ``images`` uint8 (3, H, W) RGB; ``targets``, ``camids``, ``viewids`` int; ``img_paths`` str.

        Where bad images are replaced also ``bad_images``, the paths that could not be read before this one;
        the loader takes them out of the batch and counts them in `replaced`.

        Raises:
            UserError: if the file cannot be read; it names the file, and with `may_skip` the setting.
        """
        return self._item(index, number=index)

    def _item(self, index: int, number: int) -> dict[str, Any]:
        if self._replacements is None:
            return self._read_or_stop(index)
        bad: list[str] = []
        for candidate in chain([index], self._replacements.in_turn(index, number)):
            try:
                return self._read(candidate) | {"bad_images": bad}
            except UserError:
                bad.append(self.samples[candidate].path)
        raise UserError(f"none of the {len(bad)} images can be read, first {bad[0]}", "restore the files")

    def _read_or_stop(self, index: int) -> dict[str, Any]:
        try:
            return self._read(index)
        except UserError as error:
            if not self._may_skip:
                raise
            way_out = f"{error.fix}, or train without it: DATALOADER.ON_BAD_IMAGE skip"
            raise UserError(error.problem, way_out) from error

    def _read(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        return {
            "images": self._transform(read_image(sample.path, self._size)),
            "targets": sample.pid,
            "camids": sample.camid,
            "viewids": sample.viewid,
            "img_paths": sample.path,
        }


def image_set_options(
    cfg: CfgNode, samples: list[Sample], is_train: bool, may_skip: bool = False
) -> dict[str, Any]:
    """Return the arguments of :class:`ImageSet`; with `may_skip`, ``DATALOADER.ON_BAD_IMAGE`` skip holds."""
    skip = may_skip and cfg.DATALOADER.ON_BAD_IMAGE == "skip"
    return {
        "samples": samples,
        "transform": build_transforms(cfg, is_train),
        "size": tuple(cfg.INPUT.SIZE_TRAIN if is_train else cfg.INPUT.SIZE_TEST),
        "may_skip": may_skip,
        "replacements": Replacements(samples, cfg.MODEL.SEED) if skip else None,
    }
