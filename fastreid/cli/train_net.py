"""Train a model, or evaluate one, as a config file says.

python tools/train_net.py --config-file configs/v2/base_stage1.yml --num-gpus 1
python tools/train_net.py --config-file configs/v2/base_stage1.yml --eval-only MODEL.WEIGHTS model_best.pth
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastreid.utils.cli import exit_cleanly, exit_during_imports

exit_during_imports(__name__)

from fastreid.checks import check_batches, check_environment, log_findings
from fastreid.data import build_test_datasets
from fastreid.engine import (
    DefaultTrainer,
    default_argument_parser,
    default_setup,
    launch,
    load_trained_model,
    open_output_dir,
    setup_config,
    storage_errors_named,
)
from fastreid.evaluation import evaluate_protocols
from fastreid.utils import comm

METRICS_KEPT = "The metrics are in the log above: make room or fix the disk, then evaluate again"


def main(args: argparse.Namespace) -> None:
    """What every process of the run does."""
    cfg = setup_config(args)
    default_setup(cfg)
    log_findings(check_environment(cfg))
    if args.eval_only:
        datasets = build_test_datasets(cfg)
        model = load_trained_model(cfg)
        open_output_dir(cfg, write_config=False)
        with storage_errors_named(cfg.OUTPUT_DIR, METRICS_KEPT):
            evaluate_protocols(cfg, model, datasets)
        return
    trainer = DefaultTrainer(cfg)
    log_findings(check_batches(cfg, trainer.train_set, comm.get_world_size()))
    trainer.resume_or_load(args.resume)
    trainer.train()


def run() -> None:
    with exit_cleanly(sys.argv):
        args = default_argument_parser().parse_intermixed_args()
        cfg = setup_config(args)  # once here, so that a mistake is found before processes are started
        launch(
            main,
            args.num_gpus,
            args.num_machines,
            args.machine_rank,
            args.dist_url,
            args=(args,),
            device=cfg.MODEL.DEVICE,
        )


if __name__ == "__main__":
    run()
