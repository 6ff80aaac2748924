"""SD-ReID Stage 1: the encoder learns identities and views (arXiv 2504.09549)."""

from torch import Tensor

from fastreid.config import CfgNode
from fastreid.modeling.losses import CrossEntropyLoss, accuracy
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.sdreid.encoder import SDReIDEncoder
from fastreid.structures import Batch, DataNames, EncoderOutput
from fastreid.utils.events import put_scalar


@META_ARCH_REGISTRY.register()
class SDReIDStage1(SDReIDEncoder):
    """Learns the person feature, and the identity and view conditions that Stage 2 generates from."""

    trains_encoder = True

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        losses = cfg.MODEL.LOSSES.CE
        self.view_weight = losses.VIEW_LAMBDA if losses.VIEW_ID else None
        self.view_loss = CrossEntropyLoss(**CrossEntropyLoss.from_config(cfg))
        if self.view_weight is None:
            self.view_heads.requires_grad_(False)

    def losses(self, encoded: EncoderOutput, batch: Batch) -> dict[str, Tensor]:
        """CE(identity) + metric losses + VIEW_LAMBDA * CE(view); also moves the memory bank."""
        targets, views = self.labels(batch, "targets"), self.labels(batch, "viewids")
        self.memory_bank.update(encoded.view_token, views)
        losses = self.identity_losses(self.heads(encoded.features, targets), targets)
        if self.view_weight is not None:
            view = self.view_heads(encoded.view_token, views)
            losses["loss_view"] = self.view_weight * self.view_loss(view, views)
            put_scalar("view_accuracy", accuracy(view.scores, views))
        return losses
