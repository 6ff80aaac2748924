"""SD-ReID Stage 2: the frozen encoder and the generator of features in every view (arXiv 2504.09549)."""

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.modeling.backbones import EncoderOutput
from fastreid.modeling.meta_arch.sdreid.generator import FeatureGenerator
from fastreid.modeling.meta_arch.sdreid.unet import load_pretrained_unet
from fastreid.modeling.meta_arch.sdreid.stage1 import SDReIDStage1
from fastreid.utils.events import put_scalar

logger = logging.getLogger(__name__)

GENERATOR = "generator."


class SDReIDStage2(SDReIDStage1):
    """Everything of Stage 1, frozen and in eval mode, and a generator that trains.

    In training mode it maps a batch, of images or encoded, to the diffusion loss, in eval mode to the
    retrieval features (B, D + V * D): the post-neck person feature joined with the generated feature of
    every view, as ``TEST.SDMODEL.FUSION`` says.
    """

    stage = 2
    trainable_from = (GENERATOR,)

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        self.requires_grad_(False)
        self.generator = FeatureGenerator(
            cfg, cfg.MODEL.BACKBONE.FEAT_DIM, num_id_tokens=self.backbone.num_id_tokens
        )
        self.cross_view = cfg.MODEL.SDMODEL.TARGET == "cross_view"
        self.token_mixing = cfg.MODEL.SDMODEL.TOKEN_MIXING
        self.train(self.training)

    def train(self, mode: bool = True) -> "SDReIDStage2":
        """Set the generator's mode; the encoder stays in eval mode: no drop path, no batch statistics."""
        super().train(mode)
        for module in (self.backbone, self.heads, self.view_heads, self.memory_bank):
            module.eval()
        return self

    def load_pretrained(self) -> None:
        """The UNet's weights; all of the encoder comes from Stage 1."""
        load_pretrained_unet(self.generator.unet, self.cfg.MODEL.SDMODEL.UNET_CONFIG)

    @torch.no_grad()
    def on_train_start(self, train_set, build_loader: Callable[[list], Iterable[dict]]) -> None:
        """Compute the statistics over the training set that the configuration standardises by."""
        settings = self.cfg.MODEL.SDMODEL
        fits = {}
        if settings.STANDARDIZE_LATENT:
            fits["features"] = self.generator.codec.fit
        if settings.STANDARDIZE_TOKENS:
            fits["id_tokens"] = self.generator.condition_learner.fit
        if not fits:
            return
        logger.info("Computing statistics of %d training images", len(train_set.samples))
        count, sums = 0, {name: [0.0, 0.0] for name in fits}
        for batch in build_loader(train_set.samples):
            encoded = self._encoded(batch)
            count += len(encoded.features)
            for name, (total, squares) in sums.items():
                values = getattr(encoded, name).double()
                sums[name] = [total + values.sum(0), squares + values.square().sum(0)]
        for name, (total, squares) in sums.items():
            mean = total / count
            fits[name](mean, (squares / count - mean.square()).clamp(min=0).sqrt())

    def forward(self, batch: dict, views: Sequence[int] | None = None) -> dict[str, Tensor] | Tensor:
        """As the class says; `views`: the views to generate in eval mode, None for all of them."""
        encoded = self._encoded(batch)
        if self.training:
            return self._generation_loss(encoded, batch)

        person = self.heads(encoded.features)
        if views is not None and not len(views):
            return person.float()
        generated = self.generator.generate(
            encoded.id_tokens, self.memory_bank.prototypes, batch["img_paths"], views
        )
        return self.fused(person, generated).float()

    def fused(self, person: Tensor, generated: Tensor) -> Tensor:
        """Person features (B, E) and generated ones (B, V, D) as retrieval features.

        Concatenation is the paper's: a part counts as its length does. With weights all parts have length 1,
        and in the cosine of two images a generated part counts ``VIEW_WEIGHT`` ** 2 against the person's 1.
        """
        settings = self.cfg.TEST.SDMODEL
        if settings.GENERATED_NECK:
            generated = self.heads(generated.flatten(0, 1)).unflatten(0, generated.shape[:2])
        if settings.FUSION == "weighted":
            person = nn.functional.normalize(person, dim=-1)
            generated = settings.VIEW_WEIGHT * nn.functional.normalize(generated, dim=-1)
        return torch.cat([person, generated.flatten(1)], dim=1)

    @torch.no_grad()
    def _encoded(self, batch: dict) -> EncoderOutput:
        """The batch as the encoder sees it; with CACHE_FEATURES it comes encoded."""
        if "images" in batch:
            return self.encode(batch["images"])
        return EncoderOutput(
            **{name: batch[name].to(self.device, non_blocking=True) for name in EncoderOutput._fields}
        )

    def _generation_loss(self, encoded: EncoderOutput, batch: dict) -> dict[str, Tensor]:
        """The loss of generating each image's target: itself, or its identity in another view."""
        views = batch["viewids"].to(self.device, non_blocking=True)
        chosen = torch.arange(len(views), device=self.device)
        if self.cross_view:
            chosen = self.other_images(batch)
            put_scalar("other_view_share", (views[chosen] != views).float().mean())
        loss = self.generator(
            id_tokens=self._mixed_tokens(encoded.id_tokens, batch),
            prototypes=self.memory_bank.prototypes[views[chosen]],
            view_tokens=encoded.view_token[chosen],
            targets=encoded.features[chosen],
        )
        return {"loss_noise": loss}

    def other_images(self, batch: dict) -> Tensor:
        """(B,) indices into the batch, as :func:`cross_view_targets` draws them."""
        names = batch["img_paths"]
        numbers = {name: number for number, name in enumerate(names)}
        images = torch.tensor([numbers[name] for name in names])
        labels = (batch["targets"], batch["viewids"], images)
        return cross_view_targets(*(values.to(self.device, non_blocking=True) for values in labels))

    def _mixed_tokens(self, id_tokens: Tensor, batch: dict) -> Tensor:
        """Identity tokens (B, L-1, D), some of them taken from another image of the same identity."""
        if not self.token_mixing:
            return id_tokens
        donors = self.other_images(batch)
        taken = torch.rand(*id_tokens.shape[:2], 1, device=id_tokens.device) < self.token_mixing
        return torch.where(taken, id_tokens[donors], id_tokens)


def cross_view_targets(targets: Tensor, views: Tensor, images: Tensor) -> Tensor:
    """For each image, another image of the same identity: first a view drawn at random, then an image of it.

    An image that is alone of its identity in the batch, be it there several times, is its own target.

    Args:
        targets: (B,) identities.
        views: (B,) view ids.
        images: (B,) numbers that are equal for the same image.

    Returns:
        (B,) int64 indices into the batch.
    """
    same_identity = (targets[:, None] == targets).float()
    candidates = same_identity * (images[:, None] != images).float()
    same_view = (views[:, None] == views).float()
    # Divided by the number of candidates in the same view: every view gets the same total weight.
    weights = candidates / (candidates @ same_view).clamp(min=1)
    alone = candidates.sum(1) == 0
    return torch.multinomial(weights + torch.diag_embed(alone.float()), 1)[:, 0]
