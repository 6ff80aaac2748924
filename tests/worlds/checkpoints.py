"""Checkpoints and configurations of tiny models with random weights."""

from collections.abc import Sequence
from pathlib import Path

import torch
from worlds.options import DEMO, TINY

from fastreid.config import CfgNode, get_cfg
from fastreid.modeling import build_model, fit_config
from fastreid.utils.env import preserved_rng_state


def write_checkpoint(
    folder: Path,
    stage: int,
    data: Path,
    seed: int = 1,
    views: tuple[str, ...] | None = ("aerial", "ground"),
    options: Sequence[str] = (),
) -> Path:
    """What training leaves behind, but that every weight, statistic and prototype is random.

    Args:
        views: the names in the checkpoint; None: a file from before checkpoints had names and methods.
    """
    cfg = get_cfg()
    cfg.merge_from_file(DEMO[stage])
    places = ("DATASETS.ROOT", str(data), "OUTPUT_DIR", str(folder))
    cfg.merge_from_list([*TINY, "MODEL.HEADS.NUM_CLASSES", "4", "TEST.IMS_PER_BATCH", "4", *places, *options])
    with preserved_rng_state():
        torch.manual_seed(seed)
        model = build_model(fit_config(cfg, 4, ("aerial", "ground")))
        with torch.no_grad():
            for value in (*model.parameters(), *model.memory_bank.buffers()):
                if value.is_floating_point():
                    value += 0.05 * torch.randn_like(value)
            for name, value in model.named_buffers():
                if name.endswith("running_var"):
                    value.uniform_(0.5, 2)
    described = {"method": f"SDReIDStage{stage}", "names": {"views": list(views or ())}}
    meta = {"num_classes": 4, "config": cfg.dump()} | ({"stage": stage} if views is None else described)
    torch.save({"model": model.state_dict(), "meta": meta}, folder / "model_best.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder / "model_best.pth"


def evaluation_cfg(checkpoint: Path, *options: str) -> CfgNode:
    """The configuration of ``train_net.py --eval-only`` with that checkpoint."""
    cfg = get_cfg()
    cfg.merge_from_file(checkpoint.with_name("config.yaml"))
    cfg.merge_from_list(["MODEL.WEIGHTS", str(checkpoint), *options])
    return cfg
