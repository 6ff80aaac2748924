"""CARGO in miniature: a few noise images, and a configuration that trains on them in a second."""

from pathlib import Path

import numpy as np
from PIL import Image

from fastreid.config import CfgNode, get_cfg


def write_cargo(root: Path) -> None:
    """Write 6 identities x 2 cameras, one in each view, x 2 images for training, queries and gallery."""
    rng = np.random.default_rng(0)
    for split in ("train", "query", "gallery"):
        for camera in (1, 6):
            folder = root / "CARGO" / split / f"Cam{camera}"
            folder.mkdir(parents=True)
            for pid in range(6):
                for index in range(2):
                    pixels = rng.integers(0, 256, (40, 20, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"Cam{camera}_day_{pid}_{index}.png")


def tiny_cfg(root: Path) -> CfgNode:
    """Return Stage 1 of width 128 on `root`'s CARGO: two epochs of three batches of 8, in `root`'s run."""
    cfg = get_cfg()
    backbone = {"DEPTH": "custom", "FEAT_DIM": 128, "NUM_LAYERS": 3, "NUM_HEADS": 2, "PRETRAIN": False}
    unet = {"WIDTHS": [32, 64], "TRAINABLE_BLOCK_IDX": [0, 1]}
    values = {
        "MODEL": {
            "DEVICE": "cpu",
            "BACKBONE": backbone,
            "SDMODEL": {"UNET_CONFIG": unet, "CON_LEARNER_CONFIG": {"HEADS": 4}},
        },
        "INPUT": {
            "SIZE_TRAIN": [48, 32],
            "SIZE_TEST": [48, 32],
            "PADDING": {"ENABLED": False},
            "REA": {"ENABLED": False},
        },
        "DATASETS": {"ROOT": str(root), "TESTS": ["CARGO_AG"]},
        "DATALOADER": {"NUM_WORKERS": 0},
        "SOLVER": {"IMS_PER_BATCH": 8, "MAX_EPOCH": 2, "ITERS_PER_EPOCH": 3, "OPT": "Adam", "LOG_PERIOD": 1},
        "TEST": {"EVAL_PERIOD": 0, "IMS_PER_BATCH": 5, "SDMODEL": {"NUM_INFERENCE_STEPS": 1}},
        "OUTPUT_DIR": str(root / "run"),
    }
    cfg.merge_values(values, source="test")
    return cfg
