"""Where the repository is, and overrides that shrink any of its configurations to seconds."""

from pathlib import Path

from fastreid.config import CfgNode, get_cfg

REPO = Path(__file__).resolve().parents[2]
DEMO = {stage: REPO / "configs" / "demo" / f"base_stage{stage}.yml" for stage in (1, 2)}

ANY_METHOD = [
    *("MODEL.DEVICE", "cpu", "MODEL.BACKBONE.DEPTH", "custom", "MODEL.BACKBONE.NUM_LAYERS", "3"),
    *("MODEL.BACKBONE.NUM_HEADS", "2", "MODEL.BACKBONE.FEAT_DIM", "128", "MODEL.BACKBONE.PRETRAIN", "False"),
    *("INPUT.SIZE_TRAIN", "[64, 32]", "INPUT.SIZE_TEST", "[64, 32]", "DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.IMS_PER_BATCH", "16", "SOLVER.MAX_EPOCH", "2", "SOLVER.ITERS_PER_EPOCH", "4"),
    *("SOLVER.WARMUP_ITERS", "2", "SOLVER.LOG_PERIOD", "1"),
]
TINY = [  # of SD-ReID's two stages
    *ANY_METHOD,
    *("MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", "", "MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH", ""),
    *("MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[32, 64, 64]", "MODEL.SDMODEL.CON_LEARNER_CONFIG.HEADS", "4"),
    *("MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX", "[0, 1, 2]", "TEST.SDMODEL.NUM_INFERENCE_STEPS", "2"),
]

# What a method's own networks need to be small.
_UNET = [
    "MODEL.SDMODEL.UNET_CONFIG.WIDTHS",
    "[32, 64]",
    "MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX",
    "[0, 1]",
]
OWN = {"SDReIDStage2": [*TINY, *_UNET, "INPUT.REA.ENABLED", "False"]}
OWN["ViTBaseline"] = ["MODEL.BACKBONE.NAME", "build_plain_vit_backbone"]
OWN["BoT"] = ["MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.BACKBONE.DEPTH", "18x"]
OWN["BoT"] += ["MODEL.BACKBONE.FEAT_DIM", "512"]
OWN["VDT"] = ["MODEL.BACKBONE.NAME", "build_view_token_vit_backbone"]
OWN["SeCap"] = ["MODEL.BACKBONE.NAME", "build_secap_backbone"]
OWN["TransReID"] = ["MODEL.BACKBONE.NAME", "build_transreid_backbone"]
OWN["ViSA"] = ["MODEL.BACKBONE.NAME", "build_view_tokens_vit_backbone", "MODEL.BACKBONE.GRAPH_TOP_K", "4"]
OWN["ViSA"] += ["MODEL.BACKBONE.EXPERTS", "3"]
OWN["SDReIDStage2AsReleased"] = [*OWN["SDReIDStage2"], "MODEL.SDMODEL.STANDARDIZE_LATENT", "False"]


def tiny_cfg(root: Path, *options: str) -> CfgNode:
    """Return Stage 1 of width 128, small enough for seconds, on the CARGO in `root`; it runs in `root`."""
    cfg = get_cfg()
    places = ("DATASETS.ROOT", str(root), "DATASETS.TESTS", "['CARGO_AG']", "OUTPUT_DIR", str(root / "run"))
    cfg.merge_from_list([*TINY, *places, *options])
    return cfg
