"""Where the tools are, and overrides that shrink the real configurations."""

from pathlib import Path

REPO = Path(__file__).parents[2]

# The real configurations, shrunk to models and schedules of seconds.
SHRUNK = [
    *("MODEL.BACKBONE.DEPTH", "custom", "MODEL.BACKBONE.NUM_LAYERS", "3", "MODEL.BACKBONE.NUM_HEADS", "2"),
    *("MODEL.BACKBONE.FEAT_DIM", "128", "MODEL.BACKBONE.PRETRAIN", "False"),
    *("MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", "", "MODEL.SDMODEL.UNET_CONFIG.WIDTHS", "[32, 64, 64]"),
    *("MODEL.SDMODEL.UNET_CONFIG.TRAINABLE_BLOCK_IDX", "[0, 1, 2]"),
    *("MODEL.SDMODEL.SCHEDULER_CONFIG.PRETRAINED_PATH", "", "MODEL.SDMODEL.CON_LEARNER_CONFIG.HEADS", "4"),
    *("INPUT.SIZE_TRAIN", "[64, 32]", "INPUT.SIZE_TEST", "[64, 32]"),
    *("SOLVER.IMS_PER_BATCH", "16", "DATALOADER.NUM_INSTANCE", "4", "DATALOADER.NUM_WORKERS", "0"),
    *(
        "SOLVER.MAX_EPOCH",
        "2",
        "SOLVER.ITERS_PER_EPOCH",
        "3",
        "SOLVER.WARMUP_ITERS",
        "2",
        "SOLVER.LOG_PERIOD",
        "1",
    ),
    *("TEST.SDMODEL.NUM_INFERENCE_STEPS", "2"),
]
