"""The losses on an identity head, by the names of ``MODEL.LOSSES.NAME``."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from fastreid.config import CfgNode
from fastreid.modeling.heads import HeadOutput
from fastreid.modeling.losses.pairwise import feature_spread
from fastreid.utils.errors import UserError
from fastreid.utils.events import put_scalar
from fastreid.utils.registry import Registry, requiring


class Loss(Protocol):
    """A registered loss: a class that is called with what the head gives.

    It may have keys of its own, as ``KEYS``.
    """

    logged_as: ClassVar[str]
    """Its name among the losses of a step, beginning with ``loss_``."""
    compares_pairs: ClassVar[bool]
    """It compares the images of a batch with each other."""
    needs_classifier: ClassVar[bool]
    """It reads the logits, and so trains the classifier."""

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Return the constructor's arguments."""

    def __call__(self, output: HeadOutput, targets: Tensor) -> Tensor:
        """Return the loss of B images with int64 targets (B,), a scalar."""


_PARTS = ("logged_as", "compares_pairs", "needs_classifier", "from_config")
LOSS_REGISTRY = Registry(
    "loss", "MODEL.LOSSES.NAME", requiring(*_PARTS, see="fastreid/modeling/losses/build.py")
)


class IdentityLosses:
    """The losses of ``MODEL.LOSSES.NAME``, on one head.

    Under distributed training each rank sees the pairs of its own part of the batch only; the samplers
    put whole identities on a rank.
    """

    def __init__(self, losses: Sequence[Loss]) -> None:
        # Pairs first: the order decides the last bits of the sum.
        self.losses = sorted(losses, key=lambda loss: not loss.compares_pairs)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "IdentityLosses":
        """Make the named losses.

        Raises:
            UserError: if none is named, a name is unknown, or two losses are logged under one name.
        """
        if not cfg.MODEL.LOSSES.NAME:
            known = ", ".join(LOSS_REGISTRY)
            raise UserError("MODEL.LOSSES.NAME is empty: nothing to train on", f"name one or more of {known}")
        classes = [LOSS_REGISTRY.get(name) for name in cfg.MODEL.LOSSES.NAME]
        logged = [loss.logged_as for loss in classes]
        if len(set(logged)) < len(logged):
            raise UserError(
                f"MODEL.LOSSES.NAME {cfg.MODEL.LOSSES.NAME} are logged as {', '.join(logged)}: one would hide"
                " the other",
                "name each loss once, and give yours a logged_as of its own",
            )
        return cls([loss(**loss.from_config(cfg)) for loss in classes])

    @property
    def need_classifier(self) -> bool:
        """Tell whether a loss trains the classifier."""
        return any(loss.needs_classifier for loss in self.losses)

    def __call__(self, output: HeadOutput, targets: Tensor) -> dict[str, Tensor]:
        """Return the scalars by name, and record the share of right classes and the features' spread.

        Args:
            output: of B images.
            targets: int64 (B,).
        """
        put_scalar("cls_accuracy", accuracy(output.scores, targets))
        put_scalar("feature_spread", feature_spread(output.features))
        return {loss.logged_as: loss(output, targets) for loss in self.losses}


@torch.no_grad()
def accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    """Return the share of rows of (B, C) scores whose largest one is the target's, a scalar."""
    return (scores.argmax(dim=1) == targets).float().mean()
