"""SD-ReID Stage 1: the encoder with its identity and view heads (arXiv 2504.09549)."""

import logging
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.backbones import BACKBONE_REGISTRY, EncoderOutput, load_pretrained_vit
from fastreid.modeling.meta_arch.sdreid import MemoryBank
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.losses import check_loss_names, classification_loss, feature_spread, metric_losses
from fastreid.utils.events import put_scalar

logger = logging.getLogger(__name__)


class SDReIDStage1(nn.Module):
    """Learns the person feature, and the identity and view conditions that Stage 2 generates from.

    In training mode it maps a batch to a dict of losses, in eval mode to post-neck features (B, D).
    """

    stage = 1
    trainable_from: tuple[str, ...] = ("",)  # training may start from weights that lack anything
    not_for_eval: tuple[str, ...] = ("heads.weight", "view_heads.")

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.cfg = cfg
        check_loss_names(cfg)
        build_head = REID_HEADS_REGISTRY.get(cfg.MODEL.HEADS.NAME)
        self.backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg)
        dim, views = cfg.MODEL.BACKBONE.FEAT_DIM, cfg.MODEL.SDMODEL.VIEW_NUM
        self.heads = build_head(cfg, dim, cfg.MODEL.HEADS.NUM_CLASSES)
        self.view_heads = build_head(cfg, dim, views)
        self._freeze_what_no_loss_reads()
        self.memory_bank = MemoryBank(views, dim, cfg.MODEL.SDMODEL.MOMENTUM)
        for name, values in (("pixel_mean", cfg.MODEL.PIXEL_MEAN), ("pixel_std", cfg.MODEL.PIXEL_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)

    def _freeze_what_no_loss_reads(self) -> None:
        """Several processes wait for the gradients of every parameter that asks for one."""
        losses, neck_feature = self.cfg.MODEL.LOSSES, self.cfg.MODEL.HEADS.NECK_FEAT
        if not losses.CE.VIEW_ID:
            self.view_heads.requires_grad_(False)
        if "CrossEntropyLoss" not in losses.NAME:
            self.heads.weight.requires_grad_(False)
            if neck_feature == "before":
                self.heads.bottleneck.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def load_pretrained(self) -> None:
        """What a fresh training starts from beside MODEL.WEIGHTS, which are loaded over it: here the ViT."""
        settings = self.cfg.MODEL.BACKBONE
        if settings.PRETRAIN and not self.cfg.MODEL.WEIGHTS:
            load_pretrained_vit(self.backbone, settings.PRETRAIN_PATH)

    def on_train_start(self, train_set, build_loader: Callable[[list], Iterable[dict]]) -> None:
        """Called once, before the first iteration of a fresh training; nothing to do in Stage 1."""

    def forward(self, batch: dict) -> dict[str, Tensor] | Tensor:
        encoded = self.encode(batch["images"])
        if not self.training:
            return self.heads(encoded.features).float()
        targets = batch["targets"].to(self.device, non_blocking=True)
        views = batch["viewids"].to(self.device, non_blocking=True)
        return self.losses(encoded, targets, views)

    def encode(self, images: Tensor) -> EncoderOutput:
        """Encode uint8 RGB images (B, 3, H, W); they are normalised here, on the model's device."""
        images = images.to(self.device, non_blocking=True).float()
        return self.backbone((images - self.pixel_mean) / self.pixel_std)

    def losses(self, encoded: EncoderOutput, targets: Tensor, views: Tensor) -> dict[str, Tensor]:
        """CE(identity) + metric losses + VIEW_LAMBDA * CE(view); also moves the memory bank.

        Args:
            encoded: features and view tokens (B, D).
            targets: (B,) identities.
            views: (B,) view ids.
        """
        self.memory_bank.update(encoded.view_token, views)
        identity = self.heads(encoded.features, targets)
        losses = metric_losses(self.cfg, identity.features, targets)
        if "CrossEntropyLoss" in self.cfg.MODEL.LOSSES.NAME:
            losses["loss_cls"] = classification_loss(self.cfg, identity.logits, targets)
        put_scalar("cls_accuracy", _accuracy(identity.scores, targets))
        put_scalar("feature_spread", feature_spread(encoded.features))

        settings = self.cfg.MODEL.LOSSES.CE
        if settings.VIEW_ID:
            view = self.view_heads(encoded.view_token, views)
            losses["loss_view"] = settings.VIEW_LAMBDA * classification_loss(self.cfg, view.logits, views)
            put_scalar("view_accuracy", _accuracy(view.scores, views))
        return losses


def _accuracy(scores: Tensor, targets: Tensor) -> Tensor:
    """Share of rows whose largest score is the target's, a scalar."""
    return (scores.detach().argmax(dim=1) == targets).float().mean()
