"""One trial of the study: train a generator, or the control, from encoded images, and score it."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.engine import DefaultTrainer, HookBase
from fastreid.engine.hooks import EvalHook
from fastreid.evaluation.evaluator import ReidEvaluator, protocol_features
from fastreid.modeling import build_model, fit_config
from fastreid.modeling.meta_arch.sdreid.feature_cache import EncodedLoader
from fastreid.modeling.meta_arch.sdreid.stage2 import SDReIDStage2
from fastreid.solver import build_lr_scheduler, build_optimizer
from fastreid.structures import Batch, Sample
from fastreid.utils.env import seed_all_rng
from projects.stage2_study.encoders import Encoder
from projects.stage2_study.settings import WEIGHTS, Options

Scores = dict[str, dict[str, dict[str, float]]]  # split -> how the parts are joined -> protocol -> mAP
CHUNK = 256  # images that are generated at a time
HIDDEN = 1024  # of the control


class EncodedTrainer(DefaultTrainer):
    """A trainer on the images that the study has encoded already, which evaluates nothing itself."""

    def __init__(self, cfg: CfgNode, folder: Path) -> None:
        self.folder = folder
        super().__init__(cfg)

    def build_hooks(self) -> list[HookBase]:
        return [hook for hook in super().build_hooks() if not isinstance(hook, EvalHook)]

    def build_train_loader(self, start_iter: int = 0) -> Iterable[Batch]:
        return EncodedLoader(self.cfg, self.train_set, self.folder, start_iter)

    def build_statistics_loader(self, samples: list[Sample]) -> Iterable[Batch]:
        epoch = -(-len(samples) // self.cfg.SOLVER.IMS_PER_BATCH)
        return itertools.islice(self.build_train_loader(), epoch)


def stage2_config(encoder: Encoder, folder: Path, *groups: Options) -> CfgNode:
    """Load ``configs/base_stage2.yml`` for one trial, with the keys of `groups`."""
    options = [item for group in groups for pair in group.items() for item in pair]
    own = ["MODEL.WEIGHTS", str(encoder.weights), "OUTPUT_DIR", str(folder)]
    cfg = encoder.config("base_stage2", *own, *options)
    cfg.freeze()
    return cfg


def train_generator(encoder: Encoder, cfg: CfgNode) -> SDReIDStage2:
    """Train Stage 2 with the trainer that users run; go on from a checkpoint in OUTPUT_DIR."""
    seed_all_rng(encoder.seed)
    trainer = EncodedTrainer(cfg, encoder.training_set)
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer.model


@torch.inference_mode()
def generate(encoder: Encoder, trained: SDReIDStage2, cfg: CfgNode) -> Tensor:
    """Generate features (N, V, D) of the encoder's samples as ``cfg.TEST.SDMODEL`` says."""
    names = trained.names
    model = build_model(fit_config(cfg, len(names.identities), names.views), names)
    model.load_state_dict(trained.state_dict())
    prototypes = model.eval().memory_bank.prototypes
    paths = [sample.path for sample in encoder.samples]
    parts = [
        model.generator.generate(tokens.to(model.device), prototypes, paths[start : start + CHUNK]).cpu()
        for start, tokens in zip(
            range(0, len(paths), CHUNK), encoder.encoded.id_tokens.split(CHUNK), strict=True
        )
    ]
    return torch.cat(parts)


class RegressionControl(nn.Module):
    """The control: a multi-layer perceptron from the identity tokens and a prototype to the latent.

    Args:
        dim: feature width D.
        num_id_tokens: L-1.
    """

    def __init__(self, dim: int, num_id_tokens: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim * (num_id_tokens + 1), HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, dim),
        )

    def forward(self, id_tokens: Tensor, prototypes: Tensor) -> Tensor:
        """Map (B, L-1, D) and (B, D) to (B, D)."""
        return self.layers(torch.cat([id_tokens.flatten(1), prototypes], dim=1))


def train_control(encoder: Encoder, cfg: CfgNode) -> tuple[Tensor, SDReIDStage2]:
    """Train the control on cross-view pairs as long as a generator.

    Returns:
        (N, V, D) predictions for the encoder's samples, and a model with the bank, the neck and the latent
        statistics, whose generator is untrained.
    """
    seed_all_rng(encoder.seed)
    trainer = EncodedTrainer(cfg, encoder.training_set)
    trainer.resume_or_load()
    model = trainer.model
    model.on_train_start(trainer.train_set, trainer.build_statistics_loader)
    bank, codec = model.memory_bank.prototypes.cpu(), model.generator.codec.cpu()
    standardized = model.generator.condition_learner.cpu().standardized
    control = RegressionControl(model.backbone.feat_dim, model.backbone.num_id_tokens)
    optimizer = build_optimizer(cfg, control)
    schedule = build_lr_scheduler(cfg, optimizer, cfg.SOLVER.ITERS_PER_EPOCH)
    for batch in itertools.islice(trainer.build_train_loader(), trainer.max_iteration):
        chosen = model.other_images(batch)
        predicted = control(standardized(batch["id_tokens"]), bank[batch["viewids"][chosen]])
        latents = codec.encode(batch["features"][chosen]).flatten(1)
        loss = nn.functional.mse_loss(predicted, latents)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        tokens = standardized(encoder.encoded.id_tokens)
        views = [control(tokens, prototype.expand(len(tokens), -1)) for prototype in bank]
        return torch.stack([codec.decode(v.unflatten(1, codec.shape)) for v in views], dim=1), model


@torch.inference_mode()
def join_and_score(encoder: Encoder, model: SDReIDStage2, generated: Tensor) -> Scores:
    """Score every protocol by Stage 1 alone, and by person and generated features joined in several ways.

    ``as published`` joins the raw parts; ``constant`` is the control for it, with a constant column as long
    as the generated part is on average. Else the generated features pass the neck, all parts get length 1,
    and the generated ones a weight.
    """
    heads = model.heads.cpu().eval()
    person = heads(encoder.encoded.features)
    length = generated.flatten(1).norm(dim=1).mean()
    unit = nn.functional.normalize(person, dim=-1)
    parts = heads(generated.flatten(0, 1)).unflatten(0, generated.shape[:2])
    parts = nn.functional.normalize(parts, dim=-1).flatten(1)
    joined = {
        "Stage 1": person,
        "as published": torch.cat([person, generated.flatten(1)], 1),
        "constant": torch.cat([person, length.expand(len(person), 1)], 1),
    } | {f"weight {weight:g}": torch.cat([unit, weight * parts], 1) for weight in WEIGHTS}
    return _score(encoder, joined)


def _score(encoder: Encoder, joined: dict[str, Tensor]) -> Scores:
    evaluator = ReidEvaluator(encoder.config("base_stage2"))
    scores: Scores = {}
    for split, protocols in encoder.splits.items():
        for name, features in joined.items():
            for protocol, *parts in protocol_features(features, encoder.samples, protocols):
                result = evaluator.evaluate(*parts, protocol.query, protocol.gallery)
                scores.setdefault(split, {}).setdefault(name, {})[protocol.name] = result.metrics["mAP"]
    return scores
