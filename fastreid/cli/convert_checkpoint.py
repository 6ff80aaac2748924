"""Convert a checkpoint of a method's authors to our names; docs/reference_release.md is the guide."""

import argparse
from pathlib import Path

from fastreid.cli.parsers.convert_checkpoint import build_parser
from fastreid.config import CfgNode, check_config, load_config
from fastreid.config.files import flat_keys
from fastreid.modeling import META_ARCH_REGISTRY, build_model
from fastreid.modeling.meta_arch.release_format import Conversion, ReleaseFormat, convert, taken_apart
from fastreid.structures import DataNames
from fastreid.utils.checkpoint import Checkpointer, load_checkpoint, without_module_prefix
from fastreid.utils.cli import command
from fastreid.utils.env import code_version
from fastreid.utils.errors import UserError
from fastreid.utils.file_io import atomic_write, check_output_file, named_output
from fastreid.utils.logger import setup_logger


def format_of(method: str) -> ReleaseFormat:
    """Return the format of the checkpoints of the method's authors. Raises a UserError if none is known."""
    release = META_ARCH_REGISTRY.get(method).release
    if release is None:
        known = sorted(name for name in META_ARCH_REGISTRY if META_ARCH_REGISTRY.get(name).release)
        raise UserError(
            f"no checkpoints of the authors of {method} are known",
            f"name a config of one of {', '.join(known)}",
        )
    return release


def complete_config(cfg: CfgNode, args: argparse.Namespace, reference: dict, release: ReleaseFormat) -> None:
    """Add what the weights tell to what file and command line say."""
    before = flat_keys(cfg)
    with taken_apart():
        settings = release.settings(reference, cfg.MODEL.META_ARCHITECTURE)
    for key, value in settings.items():
        cfg.merge_from_list([key, repr(value) if not isinstance(value, str) else value])
        if before[key] != value:
            print(f"{key}: {value}, as the weights have it (the config: {before[key]})")
    output = Path(args.output)
    cfg.merge_from_list(["OUTPUT_DIR", str(output.parent), "MODEL.WEIGHTS", str(output)])
    check_config(cfg, training=False)


def write(cfg: CfgNode, conversion: Conversion, release: ReleaseFormat, output: Path) -> None:
    """Write the checkpoint and the config beside it."""
    meta = {
        "method": cfg.MODEL.META_ARCHITECTURE,
        "num_classes": cfg.MODEL.HEADS.NUM_CLASSES,
        "config": cfg.dump(),
        "version": code_version(),
    }
    if release.views:
        meta["names"] = DataNames(views=release.views).to_dict()
    config = output.parent / "config.yaml"
    with named_output(config), atomic_write(config, "w") as file:
        file.write(cfg.dump())
    state = {"model": conversion.state, "meta": meta}
    Checkpointer(output.parent).save(output.name, state, mark_last=False)


@command(build_parser)
def main(args: argparse.Namespace) -> None:
    setup_logger()
    output = Path(args.output)
    for path in (output, output.parent / "config.yaml"):
        if path.exists() and not args.overwrite:
            raise UserError(f"{path} exists", "choose another --output, or --overwrite it")
        check_output_file(path, "--output")
    if output.resolve() == Path(args.model).resolve():
        raise UserError("--output is the file to convert", "choose another name: theirs is kept")
    cfg = load_config(args.config_file, args.opts)
    release = format_of(cfg.MODEL.META_ARCHITECTURE)
    reference = without_module_prefix(load_checkpoint(args.model)["model"])
    complete_config(cfg, args, reference, release)
    on_cpu = cfg.clone()
    on_cpu.MODEL.DEVICE = "cpu"
    model = build_model(on_cpu)
    conversion = convert(reference, model.state_dict(), release, model.parameter_rules().training_only)
    write(cfg, conversion, release, output)
    print(conversion.table())
    if conversion.unknown:
        number = len(conversion.unknown)
        print(f"caution: {number} tensors have no counterpart here: features may differ from theirs")
    if doubt := release.caution(cfg.MODEL.META_ARCHITECTURE):
        print(doubt)
    print(f"{output} and {output.parent / 'config.yaml'}")
