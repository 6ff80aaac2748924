"""Images with their labels, from a dataset to the encoder, and the tasks and metrics of an evaluation."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypedDict

from torch import Tensor

Metrics: TypeAlias = dict[str, float]  # Rank-1, Rank-5, Rank-10, mAP, mINP, mean, …, in percent
Results: TypeAlias = dict[str, Metrics]  # by protocol


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its labels.

    Attributes:
        path: of the file.
        pid: person id; negative: junk, nobody's.
        camid: the camera.
        viewid: the view; 0 is aerial.
        match_id: gallery images of the query's person with the query's match id are left out of its list.
            The camera, unless the protocol counts something else as one, such as the view.
    """

    path: str
    pid: int
    camid: int
    viewid: int
    match_id: int = -1  # stands for the camera until the object is made

    def __post_init__(self) -> None:
        if self.match_id == -1:
            object.__setattr__(self, "match_id", self.camid)


class SampleNames(NamedTuple):
    """Names that the data itself gives the person, the camera and the view of an image."""

    person: str
    camera: str
    view: str


class Batch(TypedDict, total=False):
    """B images with their labels; pictures without labels have ``images`` and ``img_paths`` alone."""

    images: Tensor
    """uint8 (B, 3, H, W) RGB, in channels-last memory."""
    targets: Tensor
    """int64 (B,): identities, 0 … N-1 in training."""
    camids: Tensor
    """int64 (B,): cameras."""
    viewids: Tensor
    """int64 (B,): views."""
    img_paths: list[str]


class EncoderOutput(NamedTuple):
    """The outputs of a ViT encoder with a view prompt for B images; L blocks, width D."""

    features: Tensor
    """(B, D): the class token after the final norm, the person representation."""
    view_token: Tensor
    """(B, D): the view prompt's output before the final norm, the view condition."""
    id_tokens: Tensor
    """(B, L-1, D): the class token after each of the blocks 1 ... L-1, the identity conditions; behind them,
    with MODEL.BACKBONE.PART_TOKENS, as many tokens of parts of the person."""


class DataNames(NamedTuple):
    """The training data's own names; all empty where they are not known."""

    identities: tuple[str, ...] = ()
    """By label: the person id, after the benchmark's name where several are joined."""
    cameras: dict[int, str] = {}
    """By camera id."""
    views: tuple[str, ...] = ()
    """By view id."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as checkpoints hold them."""
        return {"identities": list(self.identities), "cameras": dict(self.cameras), "views": list(self.views)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DataNames":
        """Return the names that `to_dict` gave; what is missing stays empty."""
        return cls(
            tuple(values.get("identities", ())),
            dict(values.get("cameras", {})),
            tuple(values.get("views", ())),
        )


class RetrievalTask(Protocol):
    """Queries and the gallery to search: a dataset under a protocol, or held-out people."""

    name: str
    view_names: tuple[str, ...]

    @property
    def query(self) -> list[Sample]: ...

    @property
    def gallery(self) -> list[Sample]: ...
