"""The start of every training process: logging, seeds, cuDNN and its device."""

import logging
import platform

import torch

from fastreid.config import CfgNode
from fastreid.utils import comm
from fastreid.utils.env import code_version, seed_all_rng, use_device
from fastreid.utils.logger import setup_logger

logger = logging.getLogger(__name__)


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
