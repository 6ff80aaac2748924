"""Write a trained model as ONNX files, compared with PyTorch; docs/export.md says how to use them."""

import argparse
from pathlib import Path

from tabulate import tabulate

from fastreid.cli.parsers.export import build_parser
from fastreid.config import check_config
from fastreid.deploy.onnx_export import check_export, export_model
from fastreid.engine import load_trained_model, model_config
from fastreid.modeling import method_of
from fastreid.utils.cli import command


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    cfg = model_config(args)
    cfg.MODEL.DEVICE = "cpu"
    check_config(cfg, training=False)
    check_export(method_of(cfg))
    method_of(cfg).prepare_export(cfg)
    folder = Path(args.output or Path(cfg.OUTPUT_DIR) / "export")
    agreements = export_model(load_trained_model(cfg), folder, args.pt2)
    print(tabulate(agreements, headers=agreements[0]._fields, floatfmt=("", "", "", ".7f", ".1e")))
    for file in sorted(folder.iterdir()):
        print(f"{file} ({file.stat().st_size / 1e6:.1f} MB)")
