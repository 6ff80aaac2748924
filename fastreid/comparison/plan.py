"""The trainings of a comparison: every method with every seed, checked before the first one begins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from fastreid.checks.assets import check_assets
from fastreid.checks.datasets import check_datasets
from fastreid.comparison.files import EVALUATIONS
from fastreid.config import CfgNode, check_config, load_config
from fastreid.config.files import flat_keys
from fastreid.engine.hooks.checkpointing import FINAL
from fastreid.engine.hooks.evaluation import read_evaluations
from fastreid.engine.run_folder import check_output_dir
from fastreid.modeling import method_of
from fastreid.structures import Finding
from fastreid.utils.documents import parse_yaml
from fastreid.utils.errors import UserError
from fastreid.utils.logger import warn_once

SAME_FOR_ALL = ("DATASETS.*", "MODEL.SEED", "TEST.METRIC", "TEST.AQE.*", "TEST.RERANK.*", "TEST.ROC.*")
SAME_FOR_ALL += ("TEST.EQUAL_TERMS.*",)
OF_THE_PLAN = ("OUTPUT_DIR", "MODEL.WEIGHTS")
# What a later call may change: no score depends on it.
FREE = (*OF_THE_PLAN, "MODEL.DEVICE", "DATASETS.ROOT", "DATALOADER.NUM_WORKERS", "SOLVER.LOG_PERIOD")
FREE += ("SOLVER.CHECKPOINT_*",)  # not TEST.IMS_PER_BATCH: some methods' features depend on their batch


@dataclass(frozen=True)
class Contender:
    """A method, as one configuration describes it.

    Attributes:
        name: of the configuration file, without its extension.
        options: ``["KEY", "VALUE", …]`` beside the file.
        starts_from: the name of the contender whose final model its training starts from; "": of none.
    """

    name: str
    config_file: str
    cfg: CfgNode = field(repr=False, compare=False)
    options: tuple[str, ...] = ()
    starts_from: str = ""

    @property
    def method(self) -> str:
        return method_of(self.cfg).__name__


@dataclass(frozen=True)
class Training:
    """A contender with one seed.

    Attributes:
        folder: its OUTPUT_DIR.
        weights: the final model of another training that it starts from; None: of none.
    """

    contender: Contender
    seed: int
    folder: Path
    weights: Path | None = None

    @property
    def final(self) -> Path:
        return self.folder / FINAL

    @property
    def options(self) -> list[str]:
        """Return the configuration keys that make it this training."""
        own = ["MODEL.SEED", str(self.seed), "OUTPUT_DIR", str(self.folder)]
        if self.weights is not None:
            own += ["MODEL.WEIGHTS", str(self.weights)]
        return [*self.contender.options, *own]

    @property
    def planned(self) -> Path:
        """Return where its configuration stands as it was planned, before the data fills in what it tells."""
        return self.folder / "planned.yaml"

    @property
    def evaluations(self) -> Path:
        return self.folder / EVALUATIONS

    def config(self) -> CfgNode:
        """Read its configuration."""
        return load_config(self.contender.config_file, self.options)

    @property
    def finished(self) -> bool:
        """Tell whether the last epoch is trained and evaluated.

        Raises:
            UserError: if it is, but the model is gone.
        """
        try:
            history = read_evaluations(self.evaluations) if self.evaluations.exists() else []
        except UserError as error:
            warn_once(__name__, f"{error}: its training makes them again")
            history = []
        if not history or history[-1]["epoch"] < self.contender.cfg.SOLVER.MAX_EPOCH:
            return False
        if not self.final.exists():
            raise UserError(
                f"{self.folder} is trained to its end, but {FINAL} is missing there",
                "put it back, or remove the folder to train it again",
            )
        return True


def read_contenders(config_files: Sequence[str], options: Sequence[str]) -> list[Contender]:
    """Read and check the configurations; the first is the one that the others are compared with.

    Raises:
        UserError: for a mistake in one, two of one name, other data or another way of scoring, or a method
            that starts from another's checkpoint where no configuration, or more than one, is of that.
    """
    for key in OF_THE_PLAN:
        if key in options[::2]:
            raise UserError(f"{key} is each training's own", "leave it out; --output names the folder")
    contenders: list[Contender] = []
    for file in config_files:
        cfg = load_config(file, options)
        check_config(cfg)
        cfg.freeze()
        contenders.append(Contender(Path(file).stem, file, cfg, tuple(options)))
    for number, contender in enumerate(contenders):
        if contender.name in [other.name for other in contenders[:number]]:
            raise UserError(f"two configurations are named {contender.name}", "give each file its own name")
        _check_same_conditions(contenders[0], contender)
    started = {contender.name: _with_start(contender, contenders) for contender in contenders}
    for contender in started.values():
        _check_beginning(contender, started)
    return list(started.values())


def _check_beginning(contender: Contender, contenders: dict[str, Contender]) -> None:
    """Raise a UserError if it starts, by way of others, from itself."""
    names = [contender.name]
    while start := contenders[names[-1]].starts_from:
        if start in names:
            raise UserError(f"{', '.join(names)} start from each other", "let one start from none of them")
        names.append(start)


def _check_same_conditions(first: Contender, other: Contender) -> None:
    ours, theirs = flat_keys(first.cfg), flat_keys(other.cfg)
    keys = [key for key in {**ours, **theirs} if any(fnmatch(key, pattern) for pattern in SAME_FOR_ALL)]
    if different := _differences(keys, theirs, ours):
        raise UserError(
            f"{other.config_file} and {first.config_file} cannot be compared: {'; '.join(different)}",
            "give all of them the same data, seed and scoring",
        )


def _differences(keys: Iterable[str], now: dict, before: dict) -> list[str]:
    return [f"{k} {now.get(k)!r}, not {before.get(k)!r}" for k in keys if now.get(k) != before.get(k)]


def _with_start(contender: Contender, contenders: list[Contender]) -> Contender:
    wanted = method_of(contender.cfg).starts_from
    if not wanted:
        return contender
    found = [other.name for other in contenders if other.method in wanted and other is not contender]
    if len(found) != 1:
        raise UserError(
            f"{contender.config_file} starts from a model of {' or '.join(wanted)}; configurations of it"
            f" here: {', '.join(found) or 'none'}",
            "name exactly one",
        )
    return replace(contender, starts_from=found[0])


def plan_trainings(contenders: Sequence[Contender], seeds: int, output: Path) -> list[Training]:
    """Return every contender with every seed, seed by seed; MODEL.SEED of the configuration is the first.

    Raises:
        UserError: for a folder below `output` with a training of other settings.
    """
    trainings = []
    for number in range(seeds):
        for contender in contenders:
            folder = output / contender.name / f"seed{number + 1}"
            start = output / contender.starts_from / folder.name / FINAL if contender.starts_from else None
            training = Training(contender, contender.cfg.MODEL.SEED + number, folder, start)
            check_earlier(training)
            trainings.append(training)
    return trainings


def check_earlier(training: Training) -> None:
    """Check that what lies in the folder, if anything, is this training.

    Raises:
        UserError: if it was planned with other settings.
    """
    if not training.planned.exists():
        return
    try:
        planned = parse_yaml(training.planned.read_text())
    except (OSError, ValueError):
        planned = None
    if not isinstance(planned, dict):
        warn_once(__name__, f"{training.planned} cannot be read: not compared with what is asked for now")
        return
    before, now = flat_keys(planned), flat_keys(training.config())
    keys = [key for key in {**before, **now} if not any(fnmatch(key, pattern) for pattern in FREE)]
    if different := _differences(keys, now, before):
        raise UserError(
            f"{training.folder} was planned with other settings: {'; '.join(different)}",
            "restore them, or choose another --output",
        )


def check_before(contenders: Sequence[Contender], output: Path) -> None:
    """Check the data, the files that the methods need and the folder; weights of this comparison come later.

    Raises:
        UserError: for the first error that is found.
    """
    check_output_dir(str(output))
    findings: list[Finding] = check_datasets(contenders[0].cfg).findings
    for contender in contenders:
        findings += check_assets(contender.cfg, weights_later=bool(contender.starts_from))
    for finding in findings:
        if finding.level == "error":
            raise UserError(f"{finding.check}: {finding.found}", finding.fix)
