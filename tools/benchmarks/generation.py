"""Generation and Stage 2's training step against the plain loop, as `parsers.generation` describes."""

import argparse
import sys
import tempfile
from functools import partial

import torch
from diffusers import UNet2DConditionModel
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from fastreid.config import CfgNode, get_cfg
from fastreid.engine import DefaultTrainer
from fastreid.modeling import build_model
from fastreid.modeling.meta_arch.sdreid.sampler import Sampler
from fastreid.modeling.meta_arch.sdreid.scheduler_names import DIFFUSION_SCHEDULER_REGISTRY
from fastreid.modeling.meta_arch.sdreid.schedulers import schedule_settings
from fastreid.utils.complexity import seconds_of
from fastreid.utils.env import amp_dtype, autocast, exact_float32, use_device
from tools.benchmarks.baselines.generation import generate_plainly
from tools.benchmarks.comparing import Compared, compare

CURVE_STEPS = (2, 4, 5, 10, 20)
REFERENCE_STEPS = 50


@exact_float32()
def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = use_device(args.device)
    cfg = make_cfg(args, device)
    model = make_model(cfg)
    device_name = torch.cuda.get_device_name() if device.type == "cuda" else f"{args.threads} CPU threads"
    print(f"{device_name}, torch {torch.__version__}, {args.views} views, {args.steps} DDPM steps,")
    print(f"UNet of {sum(p.numel() for p in model.generator.unet.parameters()) / 1e6:.1f} M parameters")
    print(f"median (min - max) of {args.repeats} repeats")
    rows: list[list[str]] = []
    for batch_size in args.batch_sizes:
        if "generation" in args.parts:
            compared, cosine = measure_generation(cfg, model, args, batch_size)
            rows += as_rows(f"generation of {batch_size}", compared, f"cosine >= {cosine:.6f}")
        if "training" in args.parts:
            compared, losses = measure_training(cfg, model, args, batch_size)
            agreement = f"loss {losses['ours']:.6f}, plain {losses['plain']:.6f}"
            rows += as_rows(f"training step of {batch_size}", compared, agreement)
    if rows:
        headers = ["what", "method", "images/s", "ratio", "memory", "share of peak", "agreement"]
        print(tabulate(rows, headers, disable_numparse=True))
    if "curve" in args.parts:
        points = cost_curve(cfg, model, args)
        print(tabulate(points, ["scheduler", "steps", "images/s", f"cosine to {REFERENCE_STEPS} steps"]))
        if args.plot:
            draw_curve(points, args.plot)


def make_cfg(args: argparse.Namespace, device: torch.device) -> CfgNode:
    """Describe Stage 2 of the paper; `tiny` has the widths of the demo."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = str(device)
    cfg.use_method("SDReIDStage2")
    cfg.MODEL.HEADS.NUM_CLASSES = 100
    cfg.MODEL.SDMODEL.VIEW_NUM = args.views
    cfg.TEST.SDMODEL.NUM_INFERENCE_STEPS = args.steps
    cfg.TEST.AMP.ENABLED = True
    if (args.size or ("full" if device.type == "cuda" else "tiny")) == "full":
        return cfg
    backbone = {"DEPTH": "custom", "FEAT_DIM": 128, "NUM_LAYERS": 5, "NUM_HEADS": 4, "PATCH_SIZE": 8}
    unet = {"WIDTHS": [32, 64, 64], "TRAINABLE_BLOCK_IDX": [0, 1, 2]}
    generator = {"UNET_CONFIG": unet, "CON_LEARNER_CONFIG": {"HEADS": 4}}
    model = {"BACKBONE": backbone | {"STRIDE_SIZE": [8, 8]}, "SDMODEL": generator}
    cfg.merge_values({"MODEL": model, "INPUT": {"SIZE_TRAIN": [64, 32], "SIZE_TEST": [64, 32]}}, "benchmark")
    return cfg


def make_model(cfg: CfgNode) -> nn.Module:
    """Draw random weights and a filled bank."""
    torch.manual_seed(0)
    if cfg.MODEL.BACKBONE.DEPTH == "custom":
        model = build_model(cfg)
    else:
        with tempfile.TemporaryDirectory() as folder:  # the way of the real weights
            # diffusers' other defaults are Stable Diffusion v1.5's.
            UNet2DConditionModel(cross_attention_dim=cfg.MODEL.BACKBONE.FEAT_DIM).save_pretrained(folder)
            cfg.MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH = folder
            model = build_model(cfg)
            model.load_pretrained()
    with torch.no_grad():
        model.memory_bank.prototypes.normal_()
    return model.eval()


def measure_generation(
    cfg: CfgNode, model: nn.Module, args: argparse.Namespace, batch_size: int
) -> tuple[list[Compared], float]:
    """Measure the way from the encoder's outputs to the generated features, plain and fast.

    Returns:
        Both, and the lowest cosine of their features.
    """
    id_tokens, names = make_conditions(cfg, model, batch_size)
    generator, prototypes = model.generator, model.memory_bank.prototypes
    amp = amp_dtype(cfg.TEST.AMP, model.device)
    results = {}

    def plain() -> None:
        results["plain"] = generate_plainly(cfg, generator, id_tokens, prototypes, names)

    def fast() -> None:
        with torch.inference_mode(), autocast(amp, model.device):
            results["fast"] = generator.generate(id_tokens, prototypes, names)

    methods = {"plain loop, float32": plain, f"ours, {_precision(amp)}": fast}
    compared = compare(methods, [None, amp], batch_size, args.repeats, model.device)
    return compared, torch.cosine_similarity(results["plain"], results["fast"], dim=-1).min().item()


def measure_training(
    cfg: CfgNode, model: nn.Module, args: argparse.Namespace, batch_size: int
) -> tuple[list[Compared], dict[str, float]]:
    """Measure a step from images, and one from cached features; both with the optimiser's.

    Returns:
        Both, and the losses of their first steps, which start from the same weights.
    """
    size = (batch_size, 3, *cfg.INPUT.SIZE_TRAIN)
    numbers = torch.arange(batch_size)
    labels = {"targets": numbers // 4, "viewids": numbers % args.views}
    images = torch.randint(0, 256, size, dtype=torch.uint8)
    with torch.inference_mode():
        encoded = {
            name: value.float().cpu() for name, value in model.encode({"images": images})._asdict().items()
        }
    optimizer = DefaultTrainer.build_optimizer(cfg, model)
    amp = amp_dtype(cfg.SOLVER.AMP, model.device)
    losses = {}

    def step(batch: dict, dtype: torch.dtype | None, name: str) -> None:
        torch.manual_seed(0)
        with autocast(dtype, model.device):
            loss = model(labels | batch)["loss_noise"]
        optimizer.zero_grad()
        loss.backward()
        losses.setdefault(name, loss.detach())  # the first step's: both start from the same weights
        optimizer.step()

    for group in optimizer.param_groups:
        group["lr"] = 0.0  # the weights stay, so both sides compute the same loss
    methods = {
        "plain step from images, float32": lambda: step({"images": images}, None, "plain"),
        f"ours from cached features, {_precision(amp)}": lambda: step(encoded, amp, "ours"),
    }
    model.train()
    compared = compare(methods, [None, amp], batch_size, args.repeats, model.device)
    model.eval()
    return compared, {name: loss.item() for name, loss in losses.items()}


def cost_curve(
    cfg: CfgNode, model: nn.Module, args: argparse.Namespace
) -> list[tuple[str, int, float, float]]:
    """Return ``(scheduler, steps, images/s, mean cosine to the result of 50 steps)`` for each scheduler."""
    batch_size = args.batch_sizes[-1]
    id_tokens, names = make_conditions(cfg, model, batch_size)
    generator, amp = model.generator, amp_dtype(cfg.TEST.AMP, model.device)
    sampler = generator.sampler

    def generate(scheduler: str, steps: int) -> torch.Tensor:
        generator.sampler = Sampler(scheduler, schedule_settings(cfg), steps)
        with torch.inference_mode(), autocast(amp, model.device):
            return generator.generate(id_tokens, model.memory_bank.prototypes, names)

    points = []
    cases = [(name, steps) for name in DIFFUSION_SCHEDULER_REGISTRY for steps in CURVE_STEPS]
    references = {name: generate(name, REFERENCE_STEPS) for name in DIFFUSION_SCHEDULER_REGISTRY}
    for name, steps in tqdm(cases, unit="case", disable=not sys.stderr.isatty()):
        seconds = min(seconds_of(partial(generate, name, steps), model.device) for _ in range(2))
        cosine = torch.cosine_similarity(generate(name, steps), references[name], dim=-1).mean().item()
        points.append((name, steps, batch_size / seconds, cosine))
    generator.sampler = sampler
    return points


def draw_curve(points: list[tuple[str, int, float, float]], path: str) -> None:
    """Draw what is missing to a cosine of 1 against images per second, a line for each scheduler."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for name in DIFFUSION_SCHEDULER_REGISTRY:
        own = [point for point in points if point[0] == name]
        axes.plot([rate for *_, rate, _ in own], [1 - cosine for *_, cosine in own], "o-", label=name)
        for _, steps, rate, cosine in own:
            place = (rate, 1 - cosine)
            axes.annotate(str(steps), place, textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.set(xlabel="images/s", ylabel=f"1 - cosine to {REFERENCE_STEPS} steps", xscale="log", yscale="log")
    axes.set_title("Cost of generation (numbers: steps)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def make_conditions(cfg: CfgNode, model: nn.Module, images: int) -> tuple[torch.Tensor, list[str]]:
    """Draw identity tokens (B, L-1, D), and name the images."""
    torch.manual_seed(1)
    shape = (images, model.backbone.num_id_tokens, cfg.MODEL.BACKBONE.FEAT_DIM)
    return torch.randn(shape).to(model.device), [f"{number}.jpg" for number in range(images)]


def as_rows(what: str, compared: list[Compared], agreement: str) -> list[list[str]]:
    """Return a row of the table for each method."""
    rows = [
        [
            what,
            each.method,
            f"{each.rate:.2f} ({min(each.rates):.2f} - {max(each.rates):.2f})",
            f"{each.ratio:.2f}x",
            f"{each.peak_bytes / 2**30:.2f} GB",
            f"{100 * each.peak_share:.0f} %",
            "",
        ]
        for each in compared
    ]
    rows[-1][-1] = agreement
    return rows


def _precision(amp: torch.dtype | None) -> str:
    return str(amp or torch.float32).removeprefix("torch.")
