"""The start of the training program: its command line, the configuration, and every process's set-up."""

import argparse
import logging
import platform
from pathlib import Path

import torch

from fastreid.config import CfgNode, check_config, load_config
from fastreid.engine.run_folder import check_output_dir
from fastreid.engine.trained_model import model_config
from fastreid.modeling import check_assets
from fastreid.utils import comm
from fastreid.utils.checkpoint import CHECKPOINTS
from fastreid.utils.env import code_version, seed_all_rng, use_device
from fastreid.utils.errors import UserError
from fastreid.utils.launcher import launcher_place, started_by_launcher
from fastreid.utils.logger import setup_logger

logger = logging.getLogger(__name__)


def world_size_of(args: argparse.Namespace) -> int:
    """Processes of the run that these arguments, or torchrun, start."""
    return launcher_place().world_size if started_by_launcher() else args.num_gpus * args.num_machines


def read_config(args: argparse.Namespace) -> CfgNode:
    """Return the configuration, not yet checked: defaults, the file, then the pairs of the command line.

    Raises:
        UserError: for an unknown key, a value of the wrong type, or a model to evaluate in a training.
    """
    if not args.model:
        return load_config(args.config_file, args.opts, args.imports)
    if not args.eval_only:
        fix = "add --eval-only, or name what the training starts from in MODEL.WEIGHTS"
        raise UserError("--model names a trained model, and this is a training", fix)
    return model_config(args)


def setup_config(args: argparse.Namespace) -> CfgNode:
    """The frozen and checked configuration, see `read_config`.

    Raises:
        UserError: for an unknown key, a value that is not allowed, or a pretrained file that is missing.
    """
    cfg = read_config(args)
    check_config(cfg, world_size_of(args), training=not args.eval_only)
    check_output_dir(cfg.OUTPUT_DIR)
    if not (args.resume and any(Path(cfg.OUTPUT_DIR).glob(CHECKPOINTS))):
        check_assets(cfg, training=not args.eval_only)
    cfg.freeze()
    return cfg


def default_setup(cfg: CfgNode) -> None:
    """Set up logging to the console, seeds, cuDNN and the device of this process. Writes no file.

    Weights are initialised from MODEL.SEED on every rank alike; the training steps draw from it by rank.
    """
    rank = comm.get_rank()
    setup_logger(rank=rank)
    device = use_device(cfg.MODEL.DEVICE)
    seed_all_rng(cfg.MODEL.SEED)
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    torch.backends.cudnn.deterministic = not cfg.CUDNN_BENCHMARK
    name = (
        f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda})"
        if device.type == "cuda"
        else "CPU"
    )
    logger.info(
        "fastreid %s, Python %s, torch %s, %s, %d process(es)",
        code_version(),
        platform.python_version(),
        torch.__version__,
        name,
        comm.get_world_size(),
    )
    logger.debug("Configuration:\n%s", cfg.dump())
