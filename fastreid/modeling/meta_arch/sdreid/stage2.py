"""SD-ReID Stage 2: the frozen encoder and the generator of features in every view (arXiv 2504.09549)."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.data import TrainSet
from fastreid.modeling.assets import Asset
from fastreid.modeling.meta_arch.base import BuildLoader, MakeLoader, ParameterRules
from fastreid.modeling.meta_arch.build import META_ARCH_REGISTRY
from fastreid.modeling.meta_arch.findings import views_of_identities
from fastreid.modeling.meta_arch.sdreid.assets import diffusion_assets
from fastreid.modeling.meta_arch.sdreid.encoder import SDReIDEncoder
from fastreid.modeling.meta_arch.sdreid.feature_cache import cached_batches, remove_cached_features
from fastreid.modeling.meta_arch.sdreid.identity_means import IdentityMeans
from fastreid.modeling.meta_arch.sdreid.training_statistics import fit_statistics
from fastreid.structures import Batch, DataNames, EncoderOutput, ExportPart, Finding, Tensors
from fastreid.utils.env import amp_dtype, autocast, computes_in_bf16, send
from fastreid.utils.events import put_scalar
from fastreid.utils.logger import warn_once

logger = logging.getLogger(__name__)

# What imports diffusers is imported where it is used: an installation for Stage 1 alone goes without.


@META_ARCH_REGISTRY.register()
class SDReIDStage2(SDReIDEncoder):
    """Everything of Stage 1, frozen and in eval mode, and a generator that trains.

    The retrieval feature (B, D + V * D) is the post-neck person feature joined with the generated feature of
    every view, as ``TEST.SDMODEL.FUSION`` says; its parts are named ``person`` and as the views are. With
    ``TEST.SDMODEL.REAL_OWN_VIEW`` the part of an image's own view is the person feature: two images of
    different views are compared in each of them, the real feature of one with the generated one of the other.
    """

    trains_encoder = False
    test_labels = frozenset({"viewids"})  # with REAL_OWN_VIEW
    starts_from = ("SDReIDStage1",)
    packages = frozenset({"diffusers", "transformers"})

    @classmethod
    def assets(cls, cfg: CfgNode, training: bool) -> Iterator[Asset]:
        yield from super().assets(cfg, training)
        yield from diffusion_assets(cfg, training)

    @classmethod
    def checks(cls, cfg: CfgNode, train_set: TrainSet, world_size: int) -> Iterator[Finding]:
        target = cfg.MODEL.SDMODEL.TARGET
        across = target != "same_image"
        needed = f"what TARGET {target} trains on" if across else "what a search across views needs"
        return views_of_identities(train_set, needed)

    @classmethod
    def memory_advice(cls, cfg: CfgNode) -> list[str]:
        key = "MODEL.SDMODEL.GRADIENT_CHECKPOINTING"
        return [] if cfg.MODEL.SDMODEL.GRADIENT_CHECKPOINTING else [f"{key} True"]

    @classmethod
    def stand_in_assets(cls, cfg: CfgNode, with_weights: bool) -> AbstractContextManager[CfgNode]:
        from fastreid.modeling.meta_arch.sdreid.counting import stand_in_folders

        return stand_in_folders(cfg, with_weights)

    def __init__(self, cfg: CfgNode, names: DataNames = DataNames()) -> None:
        super().__init__(cfg, names)
        self.requires_grad_(False)
        self.generator = self.build_generator(cfg)
        settings, test = cfg.MODEL.SDMODEL, cfg.TEST.SDMODEL
        self.cross_view = settings.TARGET != "same_image"
        self.identity_means = None
        if settings.TARGET == "identity_mean":
            size = cfg.MODEL.HEADS.NUM_CLASSES, settings.VIEW_NUM, self.backbone.feat_dim
            self.identity_means = IdentityMeans(*size)
        self.token_mixing = settings.TOKEN_MIXING
        self.generated_neck = test.GENERATED_NECK
        self.real_own_view = test.REAL_OWN_VIEW
        self.generates_in_amp = test.AMP
        if not self.real_own_view:
            self.test_labels = frozenset()
        self.view_weight = test.VIEW_WEIGHT if test.FUSION == "weighted" else None
        self.train(self.training)

    def build_generator(self, cfg: CfgNode) -> nn.Module:
        """Make the generator that `cfg` describes."""
        from fastreid.modeling.meta_arch.sdreid.generator import FeatureGenerator

        return FeatureGenerator.from_config(cfg, self.backbone.feat_dim, self.backbone.num_id_tokens)

    def train(self, mode: bool = True) -> "SDReIDStage2":
        """Set the generator's mode; the encoder stays in eval mode: no drop path, no batch statistics."""
        super().train(mode)
        for module in (self.backbone, self.heads, self.view_heads, self.memory_bank):
            module.eval()
        return self

    @torch.no_grad()
    def encode(self, batch: Batch) -> EncoderOutput:
        """Encode the images; with CACHE_FEATURES they come encoded."""
        if "images" in batch:
            return super().encode(batch)
        encoded = (batch[name].to(self.device, non_blocking=True) for name in EncoderOutput._fields)
        return EncoderOutput(*encoded)

    def losses(self, encoded: EncoderOutput, batch: Batch) -> dict[str, Tensor]:
        """The losses of generating each image's target: itself, or its identity in another view."""
        return self.generator(**self.training_samples(encoded, batch))

    def training_samples(self, encoded: EncoderOutput, batch: Batch) -> dict[str, Tensor]:
        """Return what the generator learns from, as arguments of `FeatureGenerator.forward`."""
        persons, views = self.labels(batch, "targets"), self.labels(batch, "viewids")
        chosen = torch.arange(len(views), device=self.device)
        if self.cross_view:
            chosen = self.other_images(batch)
            put_scalar("other_view_share", (views[chosen] != views).float().mean())
        views, means = views[chosen], self.identity_means
        return {
            "id_tokens": self._mixed_tokens(encoded.id_tokens, batch),
            "prototypes": self.memory_bank.prototypes[views],
            "view_tokens": encoded.view_token[chosen],
            "targets": encoded.features[chosen] if means is None else means(persons, views),
            "apart": (persons[:, None] == persons) & (views[:, None] != views),
        }

    def features(self, encoded: EncoderOutput, batch: Batch, parts: Sequence[str] | None = None) -> Tensor:
        """Join the chosen parts (B, D); views that are not chosen are not generated."""
        person = self.heads(encoded.features)
        names = list(self.feature_parts()) if parts is None else list(parts)
        views = [self.view_parts().index(name) for name in names if name != "person"]
        generated = own = None
        if views:
            prototypes = self.memory_bank.prototypes
            with self.generation_precision():
                generated = self.generator.generate(encoded.id_tokens, prototypes, batch["img_paths"], views)
            if self.real_own_view:
                numbers = send(torch.tensor(views), self.device)
                own = self.labels(batch, "viewids")[:, None] == numbers
        fused = self.fused(person, generated, own).float()
        computed = ["person", *(name for name in names if name != "person")]
        if computed == names:
            return fused
        widths = self.feature_parts()
        columns = dict(zip(computed, fused.split([widths[name] for name in computed], dim=1), strict=True))
        return torch.cat([columns[name] for name in names], dim=1)

    def generation_precision(self) -> AbstractContextManager[object]:
        """Generate in the block in the precision that TEST.SDMODEL.AMP asks for.

        A GPU that only emulates bf16 goes on in the precision it is in: float32, unless TEST.AMP is on.
        """
        dtype = amp_dtype(self.cfg.TEST.AMP, self.device, self.generates_in_amp)
        if dtype == torch.bfloat16 and not computes_in_bf16(self.device):
            warn_once(__name__, "TEST.SDMODEL.AMP: this GPU only emulates bf16, so it is left out")
            return nullcontext()
        return autocast(dtype, self.device)

    def feature_parts(self) -> dict[str, int]:
        width = self.heads.embedding_dim if self.generated_neck else self.backbone.feat_dim
        return super().feature_parts() | dict.fromkeys(self.view_parts(), width)

    def view_parts(self) -> list[str]:
        return self.view_names()

    def real_features(self, encoded: EncoderOutput, batch: Batch) -> Tensor:
        """Return the encoder's features, which the generator learns to make; behind the neck as they are."""
        features = self.heads(encoded.features) if self.generated_neck else encoded.features
        return features.float()

    def fused(self, person: Tensor, generated: Tensor | None, own: Tensor | None = None) -> Tensor:
        """Join person features (B, E) and generated ones (B, V, D) as retrieval features; None: left out.

        Where `own`, bool (B, V), is true, the person feature stands in for the generated one.

        Concatenation is the paper's: a part counts as its length does. With weights all parts have length 1,
        and in the cosine of two images a generated part counts ``VIEW_WEIGHT`` ** 2 against the person's 1.
        """
        joined = [person]
        if generated is not None:
            if self.generated_neck:
                generated = self.heads(generated.flatten(0, 1)).unflatten(0, generated.shape[:2])
            if own is not None:
                generated = torch.where(own[..., None], person[:, None], generated)
            if self.view_weight is not None:
                joined = [nn.functional.normalize(part, dim=-1) for part in joined]
                generated = self.view_weight * nn.functional.normalize(generated, dim=-1)
            joined.append(generated.flatten(1))
        return torch.cat(joined, dim=1)

    def other_images(self, batch: Batch) -> Tensor:
        """Return (B,) indices into the batch, as :func:`cross_view_targets` draws them."""
        names = batch["img_paths"]
        numbers = {name: number for number, name in enumerate(names)}
        images = send(torch.tensor([numbers[name] for name in names]), self.device)
        return cross_view_targets(self.labels(batch, "targets"), self.labels(batch, "viewids"), images)

    def _mixed_tokens(self, id_tokens: Tensor, batch: Batch) -> Tensor:
        """Return identity tokens (B, L-1, D), some of them from another image of the same identity."""
        if not self.token_mixing:
            return id_tokens
        donors = self.other_images(batch)
        taken = torch.rand(*id_tokens.shape[:2], 1, device=id_tokens.device) < self.token_mixing
        return torch.where(taken, id_tokens[donors], id_tokens)

    def load_pretrained(self) -> None:
        """Load the UNet's weights; all of the encoder comes from Stage 1."""
        self.generator.load_pretrained(self.cfg.MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH)

    @torch.no_grad()
    def on_train_start(self, train_set: TrainSet, build_loader: BuildLoader) -> None:
        """Compute the statistics over the training set that the configuration standardises by."""
        fits, means = self.generator.statistics_to_fit(), self.identity_means
        if not fits and means is None:
            return
        logger.info("Computing statistics of %d training images", len(train_set.samples))
        fit_statistics(self.cfg, self.encode, train_set.samples, build_loader, fits, means)

    def training_batches(
        self, cfg: CfgNode, train_set: TrainSet, make_loader: MakeLoader
    ) -> AbstractContextManager[MakeLoader]:
        """Give batches of images, or with CACHE_FEATURES of what they are encoded to."""
        remove_cached_features(cfg)  # a killed run left them
        return (
            cached_batches(cfg, self, train_set)
            if cfg.MODEL.SDMODEL.CACHE_FEATURES
            else nullcontext(make_loader)
        )

    def parameter_rules(self) -> ParameterRules:
        rules = super().parameter_rules()
        own = ("generator.", "identity_means.")
        return rules._replace(training_only=(*rules.training_only, own[1]), may_start_without=own)

    def export_parts(self) -> list[ExportPart]:
        from fastreid.modeling.meta_arch.sdreid.onnx_parts import stage2_parts

        return stage2_parts(self)

    def export_extras(self) -> dict[str, Tensors]:
        from fastreid.modeling.meta_arch.sdreid.onnx_parts import sampling_plan

        return {"sampling": sampling_plan(self.generator, len(self.memory_bank.prototypes))}

    def export_noise(self, names: Sequence[str]) -> Any | None:
        from fastreid.modeling.meta_arch.sdreid.onnx_parts import image_noise

        return image_noise(self, names)

    def for_counting(self) -> "SDReIDStage2":
        from fastreid.modeling.meta_arch.sdreid.counting import count_calls

        count_calls(self.generator)
        return self

    def opened_parts(self) -> tuple[str, ...]:
        return ("generator",)

    def count_notes(self, flops: dict[str, int], batch_size: int) -> list[str]:
        latents = self.generator.counted_latents
        each = flops["generator.unet"] / latents / 1e9
        return [f"UNet: {each:.2f} GFLOP a latent, {latents / batch_size:g} latents an image"]


def cross_view_targets(targets: Tensor, views: Tensor, images: Tensor) -> Tensor:
    """Draw for each image another one of the same identity: first a view at random, then an image of it.

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
    weights = weights + torch.diag_embed(alone.float())
    # As torch.multinomial draws, to the bit, but for its checks of the weights, which wait for the device:
    # of exponential times, the shortest is an item's with the probability of its rate.
    return (weights / torch.empty_like(weights).exponential_()).argmax(dim=1)
