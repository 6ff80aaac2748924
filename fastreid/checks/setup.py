"""Everything that can be checked before a run, in one list of findings."""

from pathlib import Path

from fastreid.checks.assets import check_asset_contents, check_assets
from fastreid.checks.batches import check_batches
from fastreid.checks.datasets import CheckedData, check_datasets
from fastreid.checks.environment import check_environment
from fastreid.checks.memory import check_memory
from fastreid.checks.pictures import check_pictures
from fastreid.checks.report import complaints, has_errors, without_repetitions
from fastreid.checks.trial import try_model
from fastreid.config import CfgNode, check_config
from fastreid.data import TrainSet
from fastreid.data.loaders import fit_batch_size, iterations_per_epoch
from fastreid.data.train_set import join_train_datasets
from fastreid.deploy.labels import dataset_views
from fastreid.engine.resume import check_resumed, check_resumed_start
from fastreid.engine.run_folder import check_output_dir
from fastreid.engine.trained_model import fit_to_checkpoint
from fastreid.modeling import MetaArch, build_meta_model, fit_config
from fastreid.modeling.weights import load_model_weights
from fastreid.structures import DataNames, Finding
from fastreid.utils.checkpoint import LAST_CHECKPOINT, Checkpointer, load_checkpoint


def check_setup(
    cfg: CfgNode,
    processes: int = 1,
    training: bool = True,
    picture_workers: int = 0,
    *,
    machines: int = 1,
    resume: bool = False,
    weights_later: bool = False,
) -> list[Finding]:
    """Run every check of `cfg`, in the order of the report; a check that fails hides no other.

    Args:
        cfg: loaded, but not checked, see `load_config`.
        processes: of the run on this machine.
        training: check for training, or for evaluation alone.
        picture_workers: threads that decode every picture; 0: none is opened.
        machines: of the run, each with as many processes.
        resume: go on from a checkpoint in OUTPUT_DIR where there is one; it stands for the pretrained files.
        weights_later: MODEL.WEIGHTS will be written before the run, and is not looked for.
    """
    world_size = processes * machines
    findings = [*_check_values(cfg, world_size, training), *check_environment(cfg, processes)]
    data = check_datasets(cfg, training)
    findings += data.findings
    if picture_workers:
        findings += check_pictures(cfg, data, picture_workers)
    goes_on = resume and (Path(cfg.OUTPUT_DIR) / LAST_CHECKPOINT).exists()
    assets = [] if goes_on else check_assets(cfg, training, weights_later)
    findings += assets

    train_set = None
    if training:
        train_set, found = _join(cfg, data)
        findings += found
    if train_set is not None:
        with complaints("batches") as found:
            cfg = fit_batch_size(cfg, train_set, world_size)
        findings += [*found, *check_batches(cfg, train_set, world_size)]
    model, found = _model(cfg, assets, train_set, training)
    findings += found
    if model is not None:
        findings += check_asset_contents(cfg, assets, model, training)
        findings += try_model(model.cfg, model, training)
        if goes_on and train_set is not None:
            findings += _resumed(model, iterations_per_epoch(model.cfg, len(train_set)), weights_later)
        findings += check_memory(model.cfg, model, processes, training, machines)
    return without_repetitions(findings)


def _check_values(cfg: CfgNode, world_size: int, training: bool) -> list[Finding]:
    with complaints("configuration") as findings:
        check_config(cfg, world_size, training)
        findings.append(Finding("ok", "configuration", "every value is allowed"))
    with complaints("OUTPUT_DIR") as output:
        check_output_dir(cfg.OUTPUT_DIR)
        output.append(Finding("ok", "OUTPUT_DIR", f"{cfg.OUTPUT_DIR} can be written"))
    return findings + output


def _join(cfg: CfgNode, data: CheckedData) -> tuple[TrainSet | None, list[Finding]]:
    if len(data.train) < max(1, len(cfg.DATASETS.NAMES)):
        found = "not checked, because the training data cannot be read"
        return None, [Finding("warning", "batches", found, "see the errors above")]
    train_set = None
    with complaints("training data") as findings:
        train_set = join_train_datasets(cfg, data.train)
    return train_set, findings


def _resumed(model: MetaArch, iters_per_epoch: int, weights_later: bool) -> list[Finding]:
    """Check that the last checkpoint in OUTPUT_DIR is one to go on from."""
    with complaints("resume") as findings:
        found = Checkpointer(model.cfg.OUTPUT_DIR).load_last()
        if found:
            path, checkpoint = found
            check_resumed(model.cfg, model, iters_per_epoch, checkpoint, str(path))
            load_model_weights(model, checkpoint["model"], "resume", source=str(path), dry_run=True)
            if not weights_later:
                check_resumed_start(model.cfg, model, checkpoint["model"], str(path))
            findings.append(Finding("ok", "resume", f"goes on from {path}"))
    return findings


def _model(
    cfg: CfgNode, assets: list[Finding], train_set: TrainSet | None, training: bool
) -> tuple[MetaArch | None, list[Finding]]:
    """Build the model without numbers; for one identity where neither data nor checkpoint tells more."""
    model = None
    with complaints("model") as findings:
        if train_set is not None:
            names = train_set.names
            fitted = fit_config(cfg, len(names.identities), names.views)
        elif not training and cfg.MODEL.WEIGHTS and not has_errors(assets):
            fitted, names = fit_to_checkpoint(cfg, load_checkpoint(cfg.MODEL.WEIGHTS))
        else:
            names = DataNames(views=dataset_views(cfg))
            fitted = fit_config(cfg, 1, names.views)
        model = build_meta_model(fitted, names)
    errors = [finding.found for finding in findings if finding.level == "error"]
    if errors and set(errors) <= {finding.found for finding in assets}:
        found = "not built, because its files are not complete: neither tried, nor its memory estimated"
        return None, [Finding("warning", "model", found, "see the errors above")]
    return model, findings
