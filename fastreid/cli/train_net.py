"""Train a model, or evaluate one, as a config file says."""

import argparse

from fastreid.checks import check_batches, check_environment, log_findings
from fastreid.cli.parsers.train_net import build_parser
from fastreid.data import build_test_datasets
from fastreid.engine import (
    DefaultTrainer,
    default_setup,
    launch,
    load_trained_model,
    open_output_dir,
    setup_config,
    storage_errors_named,
)
from fastreid.utils import comm
from fastreid.utils.cli import command

METRICS_KEPT = "The metrics are in the log above", "evaluate again"


def run(args: argparse.Namespace) -> None:
    """Train, or evaluate, as every process of the run does."""
    cfg = setup_config(args)
    default_setup(cfg)
    log_findings(check_environment(cfg))
    if args.eval_only:
        datasets = build_test_datasets(cfg)
        model = load_trained_model(cfg)
        open_output_dir(cfg, write_config=False)
        with storage_errors_named(cfg.OUTPUT_DIR, *METRICS_KEPT):
            DefaultTrainer.test(cfg, model, datasets)
        return
    trainer = DefaultTrainer(cfg)
    log_findings(check_batches(trainer.cfg, trainer.train_set, comm.get_world_size()))
    trainer.resume_or_load(args.resume)
    trainer.train()


@command(build_parser, only_logs=True)
def main(args: argparse.Namespace) -> None:
    cfg = setup_config(args)  # once here, so that a mistake is found before processes are started
    launch(
        run,
        args.num_gpus,
        args.num_machines,
        args.machine_rank,
        args.dist_url,
        args=(args,),
        device=cfg.MODEL.DEVICE,
        max_restarts=args.max_restarts,
    )
