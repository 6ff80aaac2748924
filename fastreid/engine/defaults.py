"""What every training program starts with: arguments, configuration, logging, seeds, output folder."""

import argparse
import errno
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fastreid.config import CfgNode, check_config, get_cfg
from fastreid.modeling.assets import check_assets
from fastreid.utils import comm
from fastreid.utils.cli import CommandLineParser, positive_number
from fastreid.utils.env import code_version, seed_all_rng, use_device
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, check_output_folder, sync_folder
from fastreid.utils.logger import open_log_file, setup_logger, warn_once

logger = logging.getLogger(__name__)

# A fresh run moves what an earlier one left under these names out of its way.
RUN_FILES = ("last_checkpoint", "model_*.pth", "metrics.json", "evaluations.json", "events.out.tfevents.*")
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def default_argument_parser() -> CommandLineParser:
    """Arguments of the training program. Parse with `parse_intermixed_args`: options may stand anywhere.

    Its complaints are a `UserError`.
    """
    parser = CommandLineParser(
        description="Train or evaluate a model as a config file says.",
        epilog="Several machines: the same command on each, with --num-machines, --machine-rank and"
        " --dist-url; torchrun works too.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="YAML file, e.g. configs/v2/base_stage1.yml"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, train nothing")
    parser.add_argument(
        "--num-gpus",
        type=positive_number,
        default=1,
        metavar="N",
        help="processes on this machine (default 1)",
    )
    parser.add_argument(
        "--num-machines", type=positive_number, default=1, metavar="N", help="machines of the run (default 1)"
    )
    parser.add_argument(
        "--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0"
    )
    parser.add_argument("--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config keys to change")
    return parser


def world_size_of(args: argparse.Namespace) -> int:
    """Processes of the run that these arguments, or torchrun, start."""
    return int(os.environ.get("WORLD_SIZE", args.num_gpus * args.num_machines))


def load_config(config_file: str, opts: list[str]) -> CfgNode:
    """The configuration, not yet checked: defaults, then the file (if any), then ``["KEY", "VALUE", …]``.

    Raises:
        UserError: for a file that cannot be read, an unknown key or a value of the wrong type.
    """
    cfg = get_cfg()
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(opts)
    return cfg


def setup_config(args: argparse.Namespace) -> CfgNode:
    """The frozen and checked configuration: defaults, then the file, then the pairs of the command line.

    Raises:
        UserError: for an unknown key, a value that is not allowed, or a pretrained file that is missing.
    """
    cfg = load_config(args.config_file, args.opts)
    check_config(cfg, world_size_of(args), training=not args.eval_only)
    check_output_dir(cfg.OUTPUT_DIR)
    if not (args.resume and (Path(cfg.OUTPUT_DIR) / "last_checkpoint").exists()):
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


def open_output_dir(cfg: CfgNode, write_config: bool = True) -> None:
    """Make OUTPUT_DIR, open its log file and write config.yaml. Call it once the input has proved good.

    Raises:
        UserError: if the folder cannot be written.
    """
    try:
        open_log_file(cfg.OUTPUT_DIR, comm.get_rank())
        if write_config and comm.is_main_process():
            with atomic_write(Path(cfg.OUTPUT_DIR) / "config.yaml", "w") as file:
                file.write(cfg.dump())
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be written: {error.strerror}") from error


@contextmanager
def locked_output_dir(cfg: CfgNode) -> Iterator[None]:
    """Make OUTPUT_DIR and keep other training runs out of it, as long as the block runs.

    Raises:
        UserError: if another run trains there, or the folder cannot be written.
    """
    if not comm.is_main_process():
        yield
        return
    path = Path(cfg.OUTPUT_DIR) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path, "a")  # noqa: SIM115 (closed below; closing it ends the lock)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be written: {error.strerror}") from error
    with lock:
        try:
            # A lock of the process, not of the open file: a killed run's loader workers do not keep it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(
                f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} is in use by another training run",
f"wait or choose another"
            ) from error
        except OSError as error:
            warn_once(
                __name__, f"{path} cannot be locked ({error.strerror}): do not start a second run there"
            )
        yield


@contextmanager
def storage_errors_named(output_dir: str, kept: str) -> Iterator[None]:
    """Turn the failure to write on a full or read-only disk, whichever file met it, into a UserError.

    Args:
        kept: what the message says about the work done so far, and how to go on when there is room.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        raise UserError(f"cannot write in OUTPUT_DIR {output_dir!r}: {error.strerror}. {kept}") from error


def set_earlier_run_aside(output_dir: str) -> None:
    """Move checkpoints and metrics of an earlier run in `output_dir` to its subfolder ``earlier.N``."""
    folder = Path(output_dir)
    files = [path for pattern in RUN_FILES for path in folder.glob(pattern)]
    if not files:
        return
    number = 1
    while (target := folder / f"earlier.{number}").exists():
        number += 1
    target.mkdir()
    for path in files:
        os.replace(path, target / path.name)
    sync_folder(target)
    sync_folder(folder)
    logger.warning("OUTPUT_DIR held an earlier run (--resume would go on with it): moved to %s", target)


def check_output_dir(output_dir: str) -> None:
    """Check that OUTPUT_DIR can be made and written; makes nothing.

    Raises:
        UserError: if it cannot.
    """
    if not output_dir:
        raise UserError("OUTPUT_DIR is empty",
"name the folder for logs and checkpoints")
    check_output_folder(output_dir, "OUTPUT_DIR")
