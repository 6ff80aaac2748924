"""Mistakes at the command line: one line that names the thing, exit code 2, nothing written or lost."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_runs import OPTIONS, PROGRAM, arguments, train
from worlds.options import DEMO

# ------------------------------------------------------------------------------------ without any data
CONFIG = ("--config-file", DEMO[1], *OPTIONS)
LINES: dict[str, tuple[tuple[Any, ...], str]] = {
    "config file missing": (("--config-file", "nowhere.yml"), "nowhere.yml.*configs/"),
    "config is a folder": (("--config-file", DEMO[1].parent), "configs/demo"),
    "unknown option": (("--resum",), "--resum.*--help"),
    "option without value": ((*CONFIG, "--num-gpus"), "--num-gpus"),
    "no number": ((*CONFIG, "--num-gpus", "two"), "--num-gpus.*'two'"),
    "no process": ((*CONFIG, "--num-gpus", "0"), "--num-gpus.*from 1 on, got '0'"),
    "unknown key": ((*CONFIG, "SOLVER.BASE_LRR", "1"), "'SOLVER.BASE_LRR'.*'SOLVER.BASE_LR'"),
    "key without value": ((*CONFIG, "SOLVER.BASE_LR"), "'SOLVER.BASE_LR' has no value"),
    "group as a value": ((*CONFIG, "SOLVER", "1"), "'SOLVER'.*group of keys"),
    "text for a number": ((*CONFIG, "SOLVER.MAX_EPOCH", "many"), "SOLVER.MAX_EPOCH.*int.*'many'"),
    "no finite number": ((*CONFIG, "SOLVER.BASE_LR", "nan"), "SOLVER.BASE_LR.*float.*'nan'"),
    "number for a list": ((*CONFIG, "INPUT.SIZE_TRAIN", "64"), "INPUT.SIZE_TRAIN.*list"),
    "list too short": ((*CONFIG, "INPUT.SIZE_TRAIN", "[64]"), "INPUT.SIZE_TRAIN.*2 numbers"),
    "unknown choice": ((*CONFIG, "SOLVER.OPT", "Adm"), "'Adm' in SOLVER.OPT.*'Adam'"),
    "unknown loss": ((*CONFIG, "MODEL.LOSSES.NAME", "['Triplet']"), "MODEL.LOSSES.NAME.*TripletLoss"),
    "not a share": ((*CONFIG, "INPUT.FLIP.PROB", "1.5"), "INPUT.FLIP.PROB is 1.5.*0 to 1"),
    "negative batch": ((*CONFIG, "SOLVER.IMS_PER_BATCH", "-4"), "SOLVER.IMS_PER_BATCH is -4.*greater than 0"),
    "odd batch": ((*CONFIG, "SOLVER.IMS_PER_BATCH", "18"), "is 18.*NUM_INSTANCE 4 images.*multiple of 4"),
    "batch for 3 ranks": ((*CONFIG, "--num-gpus", "3"), "IMS_PER_BATCH is 16.*multiple of 12"),
    "no output folder": ((*CONFIG, "OUTPUT_DIR", ""), "OUTPUT_DIR is empty"),
    "output is a file": ((*CONFIG, "OUTPUT_DIR", PROGRAM / "run"), "OUTPUT_DIR.*train_net.py is a file"),
    "GPU of one rank": (
        (*CONFIG, "--num-gpus", "2", "MODEL.DEVICE", "cuda:1"),
        "MODEL.DEVICE 'cuda:1'.*cuda or auto",
    ),
    "machines, no address": ((*CONFIG, "--num-machines", "2"), "--dist-url 'auto'.*tcp://HOST:PORT"),
    "address without port": (
        (*CONFIG, "--num-machines", "2", "--dist-url", "tcp://somewhere"),
        "--dist-url 'tcp://somewhere'.*tcp://HOST:PORT",
    ),
    "rank too large": (
        (*CONFIG, "--num-machines", "2", "--machine-rank", "2"),
        "--machine-rank 2.*number of machines - 1",
    ),
}

FILES: dict[str, tuple[bytes, str]] = {
    "bad YAML": (b"SOLVER: [1, 2\n", "bad.yml is not valid YAML.*line"),
    "no text": (b"\xff\xfe\x00", "bad.yml is not valid YAML"),
    "a list": (b"- SOLVER\n", "bad.yml: expected KEY: VALUE lines, found a list"),
    "a cycle": (b"_BASE_: bad.yml\n", "_BASE_ files form a cycle: .*bad.yml"),
    "no base": (b"_BASE_: none.yml\n", "none.yml.*named by _BASE_ of .*bad.yml"),
    "unknown key": (b"SOLVER:\n  BASE_LT: 1\n", "'SOLVER.BASE_LT'.*bad.yml.*'SOLVER.BASE_LR'"),
    "wrong type": (b"SOLVER: 3\n", "'SOLVER'.*bad.yml.*group of keys"),
}


@pytest.fixture
def complaint(tmp_path, monkeypatch) -> Callable[..., str]:
    """Runs the program with a command line; its one line, after checking what holds for all mistakes."""
    monkeypatch.chdir(tmp_path)

    def run(*command: Any) -> str:
        before = contents(tmp_path)
        ran = train(*command)
        assert ran.code == 2
        (line,) = ran.err.splitlines()
        assert line.startswith("error: ")
        assert "Traceback" not in ran.out
        assert contents(tmp_path) == before
        return line

    return run


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def check(line: str, said: str) -> None:
    assert re.search(said, line), line


@pytest.mark.parametrize(("command", "said"), LINES.values(), ids=LINES)
def test_a_command_line_that_cannot_be_meant(command, said, complaint):
    check(complaint(*command), said)


@pytest.mark.parametrize(("content", "said"), FILES.values(), ids=FILES)
def test_a_config_file_that_cannot_be_meant(content, said, complaint, tmp_path):
    (tmp_path / "bad.yml").write_bytes(content)
    check(complaint("--config-file", "bad.yml"), said)


# ------------------------------------------------------------------------------------------- with data
@dataclass
class Place:
    """What a case may use and damage."""

    folder: Path  # of the test, holds data/ and run/
    trained: dict[int, Path]  # finished runs, not to be changed

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def file(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def weights(self, content: Any) -> tuple[str, Path]:
        torch.save(content, self.folder / "some.pth")
        return "MODEL.WEIGHTS", self.folder / "some.pth"

    def unet(self, config: str) -> tuple[Any, ...]:
        (self.folder / "unet").mkdir()
        (self.folder / "unet" / "config.json").write_text(config)
        (self.folder / "unet" / "diffusion_pytorch_model.safetensors").touch()
        stage1 = ("MODEL.WEIGHTS", self.trained[1] / "model_best.pth")
        return *stage1, "MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", self.folder / "unet"

    def lagper(self, protocol: bytes) -> tuple[str, ...]:
        """A LAGPeR whose protocol file says that; the keys that train on it."""
        root = self.data / "LAGPeR"
        for name in (
            "bounding_box_train/a/0001_c3_1.jpg",
            "bounding_box_train/a/0001_c1_1.jpg",
            "query/0002_c3_1.jpg",
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 16)).save(root / name)
        (root / "exp3_A2G+.txt").write_bytes(protocol)
        return "DATASETS.NAMES", "['LAGPeR']", "DATASETS.TESTS", "['LAGPeR_A2G']"

    def earlier_run(self, stage: int = 1) -> Path:
        shutil.copytree(self.trained[stage], self.folder / "run")
        return self.folder / "run"


@pytest.fixture
def place(own_cargo, tmp_path, trained) -> Place:
    return Place(tmp_path, trained)


class RunsCode:
    """Pickled, this is a file that makes a folder when it is loaded the careless way."""

    def __reduce__(self):
        return (Path.mkdir, (Path("code_has_run"),))


def without_camera(place: Place) -> tuple:
    shutil.rmtree(place.data / "CARGO" / "query")
    return ()


def without_training_images(place: Place) -> tuple:
    for path in (place.data / "CARGO" / "train").rglob("*.jpg"):
        path.unlink()
    return ()


def with_an_odd_name(place: Place) -> tuple:
    next((place.data / "CARGO" / "train").rglob("*.jpg")).with_name("holiday.jpg").write_bytes(b"x")
    return ()


def with_an_unknown_camera(place: Place) -> tuple:
    (place.data / "CARGO" / "query" / "Cam99_day_1_0.jpg").write_bytes(b"x")
    return ()


def with_empty_images(place: Place) -> tuple:
    for path in (place.data / "CARGO" / "train").rglob("*.jpg"):
        path.write_bytes(b"")
    return ("DATALOADER.ON_BAD_IMAGE", "skip")


def resumed_with_another_rate(place: Place) -> tuple:
    place.earlier_run()
    return ("--resume", "SOLVER.BASE_LR", "0.5")


def resumed_with_other_identities(place: Place) -> tuple:
    place.earlier_run()
    for path in (place.data / "CARGO" / "train").rglob("*_1_*.jpg"):
        path.unlink()
    return ("--resume",)


def resumed_without_a_readable_checkpoint(place: Place) -> tuple:
    for path in place.earlier_run().glob("model_*.pth"):
        path.write_bytes(b"PK\x03\x04 and no more")
    return ("--resume",)


def resumed_as_the_other_stage(place: Place) -> tuple:
    place.earlier_run(stage=2)
    return ("--resume",)


WEIGHTS = "MODEL.WEIGHTS"
PRETRAIN = ("MODEL.BACKBONE.PRETRAIN", "True", "MODEL.BACKBONE.PRETRAIN_PATH")
CASES: dict[str, tuple[int, Callable[[Place], tuple], str]] = {
    # data
    "no data": (
        1,
        lambda p: ("DATASETS.ROOT", p.folder / "none"),
        "none/CARGO.*DATASETS.ROOT.*FASTREID_DATASETS",
    ),
    "no query folder": (1, without_camera, "folder not found: .*CARGO/query.*DATASETS.ROOT"),
    "no training images": (1, without_training_images, "no training images in .*CARGO/train"),
    "empty images": (1, with_empty_images, r"^error: (\d+) of the \1 images of .* are missing or empty"),
    "odd file name": (1, with_an_odd_name, "holiday.jpg.*Cam2_day_2519_320.jpg"),
    "unknown camera": (1, with_an_unknown_camera, "Cam99.*no camera 99.*1, 2, 3"),
    "no training set": (1, lambda p: ("DATASETS.NAMES", "[]"), "DATASETS.NAMES is empty.*CARGO"),
    "unknown training set": (1, lambda p: ("DATASETS.NAMES", "['CARGA']"), "'CARGA'.*'CARGO'"),
    "unknown protocol": (1, lambda p: ("DATASETS.TESTS", "['CARGO_GA']"), "'CARGO_GA'.*CARGO_"),
    "one set twice": (
        1,
        lambda p: ("DATASETS.NAMES", "['CARGO', 'CARGO_AG']"),
        "joins the images of .*twice",
    ),
    "other number of views": (
        1,
        lambda p: ("MODEL.SDMODEL.VIEW_NUM", 3),
        "VIEW_NUM is 3.*2 views.*set it to 2",
    ),
    "no protocol file": (
        1,
        lambda p: (*p.lagper(b""), "DATASETS.TESTS", "['LAGPeR_G2A']"),
        r"protocol file not found: .*exp4_G2A\+.txt.*DATASETS.ROOT",
    ),
    "empty protocol": (1, lambda p: p.lagper(b"\r\n"), "LAGPeR_A2G: 0 usable query.*0.*DATASETS.TESTS"),
    "missing protocol image": (
        1,
        lambda p: p.lagper(b"query/0002_c3_1.jpg\ngallery/0002_c1_1.jpg"),
        r"names 2 images, of which 1 are missing, first .*gallery/0002_c1_1.jpg.*DATASETS.ROOT",
    ),
    "odd protocol line": (
        1,
        lambda p: p.lagper(b"query/0002_c3_1.jpg\n../x.jpg"),
        r"exp3.*, line 2: '../x.jpg'",
    ),
    # registries
    "unknown architecture": (
        1,
        lambda p: ("MODEL.META_ARCHITECTURE", "SDReIDStage3"),
        "SDReIDStage3.*SDReIDStage1.*SDReIDStage2",
    ),
    "unknown backbone": (1, lambda p: ("MODEL.BACKBONE.NAME", "resnet"), "'resnet'.*build_vit_backbone"),
    "unknown head": (1, lambda p: ("MODEL.HEADS.NAME", "Embedding"), "'Embedding'.*'EmbeddingHead'"),
    "unknown sampler": (1, lambda p: ("DATALOADER.SAMPLER_TRAIN", "Naive"), "'Naive'.*NaiveIdentitySampler"),
    "unknown device": (1, lambda p: ("MODEL.DEVICE", "tpu7"), "MODEL.DEVICE 'tpu7'.*cpu"),
    "width of another depth": (
        1,
        lambda p: ("MODEL.BACKBONE.DEPTH", "small"),
        "MODEL.BACKBONE.FEAT_DIM.*384",
    ),
    # weights
    "no ViT weights": (1, lambda p: (*PRETRAIN, "none/vit.pth"), "none/vit.pth.*ownload"),
    "nothing to evaluate": (1, lambda p: ("--eval-only",), "MODEL.WEIGHTS is empty.*model_best.pth"),
    "weights missing": (1, lambda p: ("--eval-only", WEIGHTS, "none.pth"), "none.pth not found"),
    "weights empty": (
        1,
        lambda p: ("--eval-only", WEIGHTS, p.file("a.pth", b"")),
        r"a.pth is empty \(0 bytes\)",
    ),
    "weights are text": (1, lambda p: ("--eval-only", WEIGHTS, p.file("a.pth", b"hello")), "a.pth is not a"),
    "weights truncated": (
        1,
        lambda p: (
            *("--eval-only", WEIGHTS),
            p.file("a.pth", (p.trained[1] / "model_best.pth").read_bytes()[:9999]),
        ),
        "a.pth is truncated or damaged.*another checkpoint",
    ),
    "weights that run code": (
        1,
        lambda p: ("--eval-only", WEIGHTS, p.file("a.pth", pickle.dumps(RunsCode()))),
        "a.pth holds Python objects.*could run code: refused",
    ),
    "weights with code inside": (
        1,
        lambda p: ("--eval-only", *p.weights({"model": RunsCode()})),
        "some.pth holds Python objects.*could run code: refused",
    ),
    "weights of no model": (1, lambda p: ("--eval-only", *p.weights([1, 2])), "some.pth holds a list"),
    "weights of another model": (
        1,
        lambda p: ("--eval-only", *p.weights({"conv1": torch.zeros(1)})),
        "some.pth has no parameter in common.*this architecture",
    ),
    "weights of another width": (
        1,
        lambda p: (
            *("--eval-only", WEIGHTS, p.trained[1] / "model_best.pth"),
            *("MODEL.BACKBONE.FEAT_DIM", 64),
        ),
        "parameters of another shape.*ALLOW_PARTIAL_WEIGHTS",
    ),
    "weights in part": (
        1,
        lambda p: ("--eval-only", *p.weights({"backbone.cls_token": torch.zeros(1, 1, 128)})),
        r"some.pth lacks \d+ of \d+ parameters.*ALLOW_PARTIAL_WEIGHTS",
    ),
    "Stage 1 evaluated as Stage 2": (
        2,
        lambda p: ("--eval-only", WEIGHTS, p.trained[1] / "model_best.pth"),
        "is a checkpoint of SDReIDStage1.*evaluates SDReIDStage2.*config of SDReIDStage1",
    ),
    "Stage 2 evaluated as Stage 1": (
        1,
        lambda p: ("--eval-only", WEIGHTS, p.trained[2] / "model_best.pth"),
        "is a checkpoint of SDReIDStage2.*evaluates SDReIDStage1.*config of SDReIDStage2",
    ),
    "Stage 1 from Stage 2": (
        1,
        lambda p: (WEIGHTS, p.trained[2] / "model_best.pth"),
        "is a checkpoint of SDReIDStage2.*trains SDReIDStage1",
    ),
    "Stage 2 from nothing": (
        2,
        lambda p: (WEIGHTS, ""),
        "MODEL.WEIGHTS is empty.*checkpoint of SDReIDStage1",
    ),
    "Stage 2 before Stage 1": (
        2,
        lambda p: (),
        "logs/demo/stage1/model_best.pth not found.*train SDReIDStage1 first",
    ),
    "no UNet folder": (
        2,
        lambda p: (
            *(WEIGHTS, p.trained[1] / "model_best.pth"),
            *("MODEL.SDMODEL.UNET_CONFIG.PRETRAINED_PATH", "none/unet"),
        ),
        "none/unet.*Stable Diffusion v1.5",
    ),
    "UNet of another width": (
        2,
        lambda p: p.unet(json.dumps({"cross_attention_dim": 768, "in_channels": 4})),
        "cross_attention_dim is 768 and its in_channels 4, but the backbone's features of width 128 need",
    ),
    "UNet without JSON": (
        2,
        lambda p: p.unet("<html>"),
        "unet/config.json is a web page .*download",
    ),
    # resuming
    "another learning rate": (
        1,
        resumed_with_another_rate,
        r"SOLVER.BASE_LR 0.5, was 0.002\).*another OUTPUT_DIR",
    ),
    "other identities": (1, resumed_with_other_identities, "MODEL.HEADS.NUM_CLASSES 7, was 8|heads.weight"),
    "no readable checkpoint": (
        1,
        resumed_without_a_readable_checkpoint,
        "no checkpoint in .*run can be read",
    ),
    "the other stage": (
        1,
        resumed_as_the_other_stage,
        "is a checkpoint of SDReIDStage2.*resumes SDReIDStage1",
    ),
}


@pytest.mark.parametrize(("stage", "damage", "said"), CASES.values(), ids=CASES)
def test_input_that_cannot_be_used(stage, damage, said, place, complaint):
    more = damage(place)
    check(complaint(*arguments(stage, place.data, place.folder / "run", *more)), said)


def test_a_folder_in_which_another_run_trains(place, complaint):
    run = place.earlier_run()
    program = (
        "import fcntl, sys; lock = open(sys.argv[1], 'a'); fcntl.lockf(lock, fcntl.LOCK_EX);"
        "print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(run / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        check(complaint(*arguments(1, place.data, run)), "OUTPUT_DIR .* is in use by another training run")
        other.stdin.close()


def test_the_table_has_its_size():
    assert len(LINES) + len(FILES) + len(CASES) >= 70
