"""Train what generates features from encoded images: Stage 2's generator, or the control in its place."""

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fastreid.config import CfgNode
from fastreid.engine import DefaultTrainer, HookBase
from fastreid.engine.hooks import EvalHook
from fastreid.modeling import build_model, fit_config
from fastreid.modeling.meta_arch.sdreid.feature_cache import EncodedLoader
from fastreid.modeling.meta_arch.sdreid.stage2 import SDReIDStage2
from fastreid.modeling.meta_arch.sdreid.training import view_separation_loss
from fastreid.solver import build_lr_scheduler, build_optimizer
from fastreid.structures import Batch, Sample
from fastreid.utils.env import seed_all_rng
from projects.stage2_study.encoders import Encoder
from projects.stage2_study.settings import Options

CHUNK = 256  # images that are generated at a time


class EncodedTrainer(DefaultTrainer):
    """A trainer on the images that the study has encoded already, which evaluates nothing itself."""

    def __init__(self, cfg: CfgNode, folder: Path) -> None:
        self.folder = folder
        super().__init__(cfg)

    def build_hooks(self) -> list[HookBase]:
        return [hook for hook in super().build_hooks() if not isinstance(hook, EvalHook)]

    def build_train_loader(self, start_iter: int = 0) -> Iterable[Batch]:
        return map(self._with_own_tokens, EncodedLoader(self.cfg, self.train_set, self.folder, start_iter))

    def build_statistics_loader(self, samples: list[Sample]) -> Iterator[Batch]:
        loader = EncodedLoader(self.cfg, self.train_set, self.folder, 0)
        for rows in torch.arange(len(samples)).split(CHUNK):
            yield self._with_own_tokens(loader.take(rows.tolist(), [0] * len(rows)))

    def _with_own_tokens(self, batch: Batch) -> Batch:
        return {**batch, "id_tokens": own_tokens(self.model, batch["id_tokens"])}


def own_tokens(model: SDReIDStage2, id_tokens: Tensor) -> Tensor:
    """Return the first identity tokens (..., T, D) that `model` reads: those of parts are the last ones."""
    return id_tokens[..., : model.backbone.num_id_tokens, :]


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
    """Generate features (N, 2, V, D) of the encoder's samples and their mirror images, as `cfg` says."""
    names = trained.names
    model = build_model(fit_config(cfg, len(names.identities), names.views), names)
    model.load_state_dict(trained.state_dict())
    prototypes = model.eval().memory_bank.prototypes
    tokens = own_tokens(model, encoder.encoded.id_tokens).flatten(0, 1)
    paths = [sample.path for sample in encoder.samples for _ in range(2)]
    parts = [
        model.generator.generate(part.to(model.device), prototypes, paths[start : start + CHUNK]).cpu()
        for start, part in zip(range(0, len(paths), CHUNK), tokens.split(CHUNK), strict=True)
    ]
    return torch.cat(parts).unflatten(0, (-1, 2))


class MultiLayerPerceptron(nn.Module):
    """The control: from the identity tokens and a prototype to the latent, with two hidden layers.

    Args:
        inputs, hidden, outputs: widths.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, outputs),
        )

    def forward(self, id_tokens: Tensor, prototypes: Tensor) -> Tensor:
        """Map (B, T, D) and (B, D) to (B, D)."""
        return self.layers(torch.cat([id_tokens.flatten(1), prototypes], dim=1))


def matched_perceptron(model: SDReIDStage2) -> MultiLayerPerceptron:
    """Return a control with as many parameters as `model` trains, to less than one hidden unit's."""
    dim = model.backbone.feat_dim
    inputs = dim * (model.backbone.num_id_tokens + 1)
    wanted = trained_parameters(model)
    # hidden^2 + (inputs + 2 + dim) * hidden + dim parameters
    half = (inputs + 2 + dim) / 2
    hidden = round(math.sqrt(half**2 + max(0, wanted - dim)) - half)
    return MultiLayerPerceptron(inputs, max(1, hidden), dim)


def trained_parameters(model: nn.Module) -> int:
    """Count the parameters that train."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def train_perceptron(encoder: Encoder, cfg: CfgNode) -> tuple[Tensor, int]:
    """Train the control as `cfg` says of the generator: on the same inputs and targets, as many steps.

    Its loss is the generator's for clean latents, but from no noise: mean squared error, and VIEW_SEPARATION.

    Returns:
        (N, 2, V, D) predictions for the encoder's samples and their mirror images, and its parameters.
    """
    seed_all_rng(encoder.seed)
    trainer = EncodedTrainer(cfg, encoder.training_set)
    trainer.resume_or_load()
    model = trainer.model
    model.on_train_start(trainer.train_set, trainer.build_statistics_loader)
    codec, learner = model.generator.codec, model.generator.condition_learner
    control = matched_perceptron(model).to(model.device)
    optimizer = build_optimizer(cfg, control)
    schedule = build_lr_scheduler(cfg, optimizer, cfg.SOLVER.ITERS_PER_EPOCH)
    for batch in itertools.islice(trainer.build_train_loader(), trainer.max_iteration):
        samples = model.training_samples(model.encode(batch), batch)
        predicted = control(learner.standardized(samples["id_tokens"]), samples["prototypes"])
        latents = codec.encode(samples["targets"]).flatten(1)
        loss = nn.functional.mse_loss(predicted, latents)
        if weight := cfg.MODEL.SDMODEL.VIEW_SEPARATION:
            loss = loss + weight * view_separation_loss(predicted, latents, samples["apart"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return _predict(encoder, model, control), trained_parameters(control)


@torch.inference_mode()
def _predict(encoder: Encoder, model: SDReIDStage2, control: MultiLayerPerceptron) -> Tensor:
    """Return the control's features (N, 2, V, D) of the encoder's samples in every view."""
    codec, learner = model.generator.codec, model.generator.condition_learner
    tokens = own_tokens(model, encoder.encoded.id_tokens).flatten(0, 1).to(model.device)
    tokens = learner.standardized(tokens)
    views = [control(tokens, prototype.expand(len(tokens), -1)) for prototype in model.memory_bank.prototypes]
    decoded = [codec.decode(latents.unflatten(1, codec.shape)) for latents in views]
    return torch.stack(decoded, dim=1).unflatten(0, (-1, 2)).cpu()
