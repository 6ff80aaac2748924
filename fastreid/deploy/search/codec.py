"""From features to codes: which list of an inverted file a feature belongs to, and its bytes there."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write

FORM = "expected [OPQm,]IVFlists,code[,Refine(code)], such as OPQ64,IVF4096,PQ32,Refine(PQ64)"
ROTATION, LISTS, REFINEMENT = "rotation.npy", "lists.faiss", "refinement.faiss"
REFINEMENT_TRAINING = 65_536  # features: 256 for each of a product quantiser's 256 centres, as in faiss
ENCODED = 4096  # features at once: faiss takes 1 KB for each byte of each code


class Codes(NamedTuple):
    """The codes of n features."""

    lists: np.ndarray
    """(n,) int64: the list of each."""
    codes: np.ndarray
    """(n, code_size) uint8, kept in the lists."""
    refinement: np.ndarray
    """(n, refinement_size) uint8, of what those codes lost; 0 columns without a refinement."""


class FeatureCodec:
    """Trained quantisers, by a factory string of faiss: ``[OPQm,]IVFlists,code[,Refine(code)]``.

    *IVF* is an inverted file (Sivic and Zisserman, Video Google, ICCV 2003) whose lists' centres k-means
    places; a *code* is ``Flat`` (the feature itself), ``PQm`` (product quantiser: Jégou et al., TPAMI 2011)
    of what the centre leaves, or another that faiss knows. Two parts are ours. ``OPQm`` is solved, not
    iterated: principal axes, shared out so that the variances of m groups have equal products (the parametric
    solution of Ge et al., Optimized Product Quantization, CVPR 2013). ``Refine`` codes what the first code
    *lost* (Jégou et al., Searching in one billion vectors, ICASSP 2011), so that the bytes of both count;
    faiss's codes the feature once more.

    Attributes:
        ivf: faiss's, without content.
        rotation: (D, D) float32 or None.
        refinement: faiss's codec, or None.
    """

    def __init__(self, ivf: Any, rotation: np.ndarray | None = None, refinement: Any = None) -> None:
        self.ivf, self.rotation, self.refinement = ivf, rotation, refinement

    @classmethod
    def train(cls, recipe: str, sample: np.ndarray) -> "FeatureCodec":
        """Train the quantisers of a factory string.

        Args:
            sample: (n, D) float32 of length 1; it is rotated in place.

        Raises:
            UserError: for a string of another form, or too few features.
        """
        groups, ivf, refinement = parse_recipe(recipe, sample.shape[1])
        codec = cls(ivf, None, refinement)
        try:
            if groups:
                codec.rotation = balanced_axes(sample, groups)
                for block in _blocks(sample, REFINEMENT_TRAINING):
                    block[:] = codec.rotate(block)
            for quantiser in (ivf, refinement):
                if hasattr(quantiser, "pq"):
                    quantiser.pq.cp.min_points_per_centroid = 1  # no warning: what it costs is measured
                    quantiser.do_polysemous_training = False  # slow, for searches that we do not make
            if ivf.nlist == 1:
                ivf.cp.min_points_per_centroid = 1
            ivf.cp.spherical = True  # the features have length 1, and so have the centres
            ivf.train(sample)
            if refinement is not None:
                step = -(-len(sample) // REFINEMENT_TRAINING)
                refinement.train(codec._lost(np.ascontiguousarray(sample[::step])))
        except RuntimeError as error:
            raise UserError(
                f"{recipe} cannot be trained with {len(sample)} features ({_reason(error)})",
                "choose --kind exact",
            ) from error
        return codec

    @property
    def lists(self) -> int:
        return self.ivf.nlist

    @property
    def width(self) -> int:
        return self.ivf.d

    @property
    def code_size(self) -> int:
        """Bytes of a feature in its list, without its number."""
        return self.ivf.code_size

    @property
    def refinement_size(self) -> int:
        return 0 if self.refinement is None else self.refinement.sa_code_size()

    @property
    def lossless(self) -> bool:
        """Tell whether the codes are the features themselves."""
        return isinstance(self.ivf, import_faiss().IndexIVFFlat)

    def rotate(self, features: np.ndarray) -> np.ndarray:
        """Turn (n, D) float32 into the space of the codes."""
        return features if self.rotation is None else features @ self.rotation.T

    def encode(self, features: np.ndarray) -> Codes:
        """Encode features (n, D) float32 of length 1."""
        parts = [self._encode(self.rotate(block)) for block in _blocks(features, ENCODED)]
        return Codes(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _encode(self, rotated: np.ndarray) -> Codes:
        stored = self.ivf.sa_encode(np.ascontiguousarray(rotated))
        coarse = stored.shape[1] - self.code_size  # bytes of the list's number, in front
        lists = stored[:, :coarse].astype(np.int64) @ (256 ** np.arange(coarse, dtype=np.int64))
        refinement = np.empty((len(rotated), 0), np.uint8)
        if self.refinement is not None:
            refinement = self.refinement.sa_encode(rotated - self.ivf.sa_decode(stored))
        return Codes(lists, stored[:, coarse:], refinement)

    def _lost(self, rotated: np.ndarray) -> np.ndarray:
        """Return (n, D): what the first code does not tell."""
        lost = [block - self.ivf.sa_decode(self.ivf.sa_encode(block)) for block in _blocks(rotated, ENCODED)]
        return np.concatenate(lost)

    def save(self, folder: str | os.PathLike) -> None:
        faiss = import_faiss()
        for name, part in ((LISTS, self.ivf), (REFINEMENT, self.refinement)):
            if part is not None:
                with atomic_write(Path(folder, name)) as file:
                    faiss.write_index(part, faiss.PyCallbackIOWriter(file.write))
        if self.rotation is not None:
            with atomic_write(Path(folder, ROTATION)) as file:
                np.save(file, self.rotation)

    @classmethod
    def open(cls, folder: str | os.PathLike, recipe: str) -> "FeatureCodec":
        """Read what :meth:`save` wrote; OSError, ValueError or RuntimeError if it cannot be read."""
        faiss = import_faiss()
        codec = cls(faiss.read_index(str(Path(folder, LISTS))))
        groups, _, refinement = parse_recipe(recipe, codec.width)
        if groups:
            codec.rotation = np.load(Path(folder, ROTATION))
        if refinement is not None:
            codec.refinement = faiss.read_index(str(Path(folder, REFINEMENT)))
        return codec


def import_faiss() -> ModuleType:
    """Return the faiss module.

    Raises:
        UserError: if it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError("searching needs faiss, which is not installed", "pip install faiss-cpu") from error
    return faiss


def normalised(features: np.ndarray) -> np.ndarray:
    """Return the rows of (N, D) as contiguous float32 of length 1; a zero row stays zero."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(lengths, 1e-12), dtype=np.float32)


def balanced_axes(sample: np.ndarray, groups: int) -> np.ndarray:
    """Return the principal axes of (n, D), shared out to groups so that their products of variances agree.

    From the largest variance on, each axis goes to the group with the smallest product that has room.

    Returns:
        (D, D) float32, orthonormal; the rows of a group stand together.
    """
    moments = sum(block.T @ block for block in _blocks(sample, REFINEMENT_TRAINING))
    variances, axes = np.linalg.eigh(moments.astype(np.float64))
    logarithms = np.log(np.maximum(variances, variances[-1] * 1e-9))
    room = sample.shape[1] // groups
    members: list[list[int]] = [[] for _ in range(groups)]
    products = np.zeros(groups)
    for axis in range(sample.shape[1] - 1, -1, -1):
        group = int(np.argmin(products))
        members[group].append(axis)
        products[group] += logarithms[axis] - logarithms[0]
        if len(members[group]) == room:
            products[group] = np.inf
    return np.ascontiguousarray(axes[:, np.concatenate(members)].T, dtype=np.float32)


def _blocks(features: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (features[start : start + size] for start in range(0, len(features), size))


def parse_recipe(recipe: str, width: int) -> tuple[int | None, Any, Any]:
    """Return OPQ's number of groups or None, the IVF index, and the refinement or None; nothing is trained.

    Raises:
        UserError: for a string of another form.
    """
    faiss = import_faiss()
    try:
        whole = index = faiss.index_factory(width, recipe, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UserError(
            f"--kind {recipe!r} is no index of {width} numbers ({_reason(error)})", FORM
        ) from error
    groups = refinement = None
    if isinstance(whole, faiss.IndexRefine):
        refinement = faiss.clone_index(whole.refine_index)
        index = faiss.downcast_index(whole.base_index)
    rotation = None
    if isinstance(index, faiss.IndexPreTransform) and index.chain.size() == 1:
        rotation = faiss.downcast_VectorTransform(index.chain.at(0))
        index = faiss.downcast_index(index.index)
    if isinstance(rotation, faiss.OPQMatrix) and rotation.d_out == width:
        groups = rotation.M
    if (rotation and not groups) or not (isinstance(index, faiss.IndexIVF) and _plain_lists(index)):
        raise UserError(f"--kind {recipe!r}: an index of that form cannot be kept on disk", FORM)
    if groups and width % groups:
        raise UserError(f"--kind {recipe!r}: {groups} groups cannot share {width} numbers equally", FORM)
    return groups, faiss.clone_index(index), refinement


def _plain_lists(ivf: Any) -> bool:
    faiss = import_faiss()
    return type(faiss.downcast_InvertedLists(ivf.invlists)) is faiss.ArrayInvertedLists


def _reason(error: RuntimeError) -> str:
    return str(error).rpartition("Error: ")[2].strip()[:120]
