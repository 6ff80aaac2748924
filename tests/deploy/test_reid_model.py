"""A trained model in Python: what it takes, and that it gives an evaluation's features."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from worlds.checkpoints import evaluation_cfg
from worlds.options import REPO

from fastreid import ReIDModel
from fastreid.data.datasets import Sample
from fastreid.engine import load_trained_model
from fastreid.evaluation.extraction import extract_over_ranks
from fastreid.utils.errors import UserError

D = 128
PERSON, VIEWS = slice(0, D), {0: slice(D, 2 * D), 1: slice(2 * D, 3 * D)}
PER_IMAGE = ("TEST.SDMODEL.NOISE", "per_image")


@pytest.fixture(scope="module")
def models(checkpoints) -> dict[int, ReIDModel]:
    return {stage: ReIDModel.from_checkpoint(path, device="cpu") for stage, path in checkpoints.items()}


@pytest.fixture(scope="module")
def per_image(checkpoints) -> ReIDModel:
    return ReIDModel.from_checkpoint(checkpoints[2], device="cpu", options=PER_IMAGE)


def assert_same(features: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for a millionth of the features' length."""
    assert features.shape == expected.shape
    assert features.dtype == np.float32
    lengths = np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.abs((features - expected) / lengths).max() <= 1e-6


def test_import_is_cheap_and_stage_1_needs_neither_diffusers_nor_faiss(checkpoints):
    program = f"""
import sys
from pathlib import Path
import fastreid
assert not {{"torch", "numpy", "PIL"}} & set(sys.modules)
assert "ReIDModel" in dir(fastreid)
from fastreid import ReIDModel
from fastreid.deploy import feature_files, search
ReIDModel.from_checkpoint({str(checkpoints[1])!r}, device="cpu")
assert not {{"diffusers", "faiss"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=REPO, check=True, timeout=120)


def test_the_package_has_no_other_lazy_names():
    import fastreid

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fastreid.no_such_name


class TestFeatures:
    @pytest.mark.parametrize("stage", [1, 2])
    @pytest.mark.parametrize("options", [(), ("TEST.FLIP.ENABLED", "True"), PER_IMAGE])
    def test_they_are_those_of_an_evaluation(self, checkpoints, paths, stage, options):
        cfg = evaluation_cfg(checkpoints[stage], *options)
        samples = [Sample(path, 0, 0, 0) for path in paths]
        expected = extract_over_ranks(cfg, load_trained_model(cfg), samples).numpy()
        model = ReIDModel.from_checkpoint(checkpoints[stage], device="cpu", options=options)
        features = model.extract(paths)
        assert features.shape == (7, D if stage == 1 else 3 * D)
        assert_same(features, expected)

    @pytest.mark.parametrize("stage", [1, 2])
    def test_they_depend_neither_on_the_batch_size_nor_on_the_order(self, checkpoints, models, paths, stage):
        expected = models[stage].extract(paths)
        assert_same(models[stage].extract(paths[::-1])[::-1], expected)
        assert_same(np.concatenate([models[stage].extract(path) for path in paths[:3]]), expected[:3])
        options = ("TEST.IMS_PER_BATCH", "3")
        other = ReIDModel.from_checkpoint(checkpoints[stage], device="cpu", options=options)
        assert_same(other.extract(paths), expected)

    def test_worker_processes_change_nothing(self, checkpoints, models, paths):
        options = ("DATALOADER.NUM_WORKERS", "1")
        model = ReIDModel.from_checkpoint(checkpoints[1], device="cpu", options=options)
        assert np.array_equal(model.extract(paths), models[1].extract(paths))

    def test_no_pictures_have_features_of_the_full_width(self, models):
        assert models[2].extract([]).shape == (0, 3 * D)
        assert models[2].extract([], views=[1]).shape == (0, 2 * D)
        assert models[1].extract([]).shape == (0, D)

    def test_the_callers_random_numbers_stay_as_they_were(self, checkpoints, paths):
        torch.manual_seed(5)
        expected = torch.rand(3)
        torch.manual_seed(5)
        ReIDModel.from_checkpoint(checkpoints[2], device="cpu").extract(paths[0])
        assert torch.equal(torch.rand(3), expected)


class TestPictures:
    @pytest.fixture(scope="class")
    def pixels(self, paths) -> list[np.ndarray]:
        return [np.asarray(Image.open(path)) for path in paths]

    @pytest.mark.parametrize(
        "convert",
        [
            lambda path, pixels: path,
            lambda path, pixels: Image.open(path),
            lambda path, pixels: Image.fromarray(pixels),
            lambda path, pixels: pixels,
            lambda path, pixels: pixels[:, :, ::-1].copy()[:, :, ::-1],  # as BGR turned round
            lambda path, pixels: torch.from_numpy(pixels.copy()).permute(2, 0, 1),
            lambda path, pixels: torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous(),
            lambda path, pixels: torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255,
            lambda path, pixels: pixels / 255,
            lambda path, pixels: (pixels / 255).astype(np.float32),
            lambda path, pixels: Path(path).read_bytes(),
            lambda path, pixels: io.BytesIO(Path(path).read_bytes()),
            lambda path, pixels: io.FileIO(path),
        ],
        ids=[
            *("path", "opened", "pil", "array", "view", "tensor", "contiguous"),
            *("float", "float64", "float32", "bytes", "buffer", "file"),
        ],
    )
    def test_every_kind_of_picture_has_the_same_features(self, models, paths, pixels, convert):
        pictures = [convert(*pair) for pair in zip(paths, pixels, strict=True)]
        assert_same(models[1].extract(pictures), models[1].extract(paths))
        assert_same(models[1].extract(pictures[0]), models[1].extract(paths[:1]))

    @pytest.mark.parametrize("convert", [np.asarray, lambda grey: np.asarray(grey) / 255])
    def test_a_grey_array_is_a_grey_picture(self, models, pixels, convert):
        grey = Image.fromarray(pixels[0]).convert("L")
        assert_same(models[1].extract(convert(grey)), models[1].extract(grey))
        assert_same(models[1].extract([convert(grey)] * 2), models[1].extract([grey] * 2))

    def test_a_large_jpeg_in_memory_is_decoded_as_its_file(self, models, tmp_path):
        noise = np.random.default_rng(0).integers(0, 256, (512, 256, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "large.jpg")
        expected = models[1].extract(tmp_path / "large.jpg")
        assert np.array_equal(models[1].extract((tmp_path / "large.jpg").read_bytes()), expected)

    def test_normalized_rows_have_length_one_as_a_whole(self, models, paths, tmp_path):
        (tmp_path / "bad.jpg").touch()
        plain = models[2].extract(paths)
        rows = models[2].extract([*paths, tmp_path / "bad.jpg"], normalize=True, skip_bad=True)
        assert np.isnan(rows[-1]).all()
        np.testing.assert_allclose(rows[:-1], plain / np.linalg.norm(plain, axis=1)[:, None], atol=1e-6)
        assert models[2].extract([], normalize=True).shape == (0, plain.shape[1])

    def test_several_may_come_as_one_array_or_mixed_or_from_a_generator(self, models, paths, pixels):
        expected = models[1].extract(paths)
        assert_same(models[1].extract(np.stack(pixels)), expected)
        assert_same(models[1].extract(path for path in paths), expected)
        assert_same(models[1].extract([paths[0], pixels[1], Image.open(paths[2])]), expected[:3])

    def test_a_pil_image_is_turned_upright_and_left_as_it_was(self, models, pixels, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        lying = Image.fromarray(pixels[0]).rotate(90, expand=True)
        lying.save(tmp_path / "lying.png", exif=exif)
        opened = Image.open(tmp_path / "lying.png")
        size = opened.size
        assert_same(models[1].extract(opened), models[1].extract(pixels[0]))
        assert opened.size == size

    @pytest.mark.parametrize(
        ("picture", "message"),
        [
            (3, "from a int: expected a path"),
            ([None], "from a NoneType"),
            (b"bytes", "^picture 0 .from 0.: cannot read an image from 5 bytes: cannot identify"),
            ([b""], "cannot read an image from 0 bytes: they are none"),
            (io.StringIO("text"), 'file object of text; open it with mode "rb"'),
            (np.zeros(4, np.uint8), "from a uint8"),
            (np.zeros((4, 4), np.int64), r"int64 \(4, 4\)"),
            (np.zeros((4, 4), "<U3"), r"<U3 \(4, 4\)"),
            ([np.zeros((4, 4, 4), np.uint8)], r"uint8 \(4, 4, 4\)"),
            ([np.full((4, 4, 3), 200.0)], "floats from 200 to 200"),
            ([torch.zeros(4, 4, 3)], r"shape \(4, 4, 3\)"),
            ([torch.zeros(3, 4, 4, dtype=torch.int64)], "int64"),
            ([torch.full((3, 4, 4), 200.0)], "from 200 to 200"),
            ([torch.full((3, 4, 4), float("nan"))], "nan"),
            (
                "no/such/file.jpg",
                "^image file not found: no/such/file.jpg; restore .*, or leave it out",
            ),
            (
                np.zeros((0, 10, 3), np.uint8),
                r"^picture 0 .from 0.: an array of uint8 \(0, 10, 3\) is no pic",
            ),
            ([np.zeros((9, 9, 3), np.uint8), np.zeros((9, 0, 3), np.uint8)], r"^picture 1 .*\(9, 0, 3\)"),
            (Image.new("RGB", (10, 0)), r"^picture 0 .*\(0, 10, 3\)"),
        ],
    )
    def test_what_is_no_picture_is_refused(self, models, picture, message):
        with pytest.raises(UserError, match=message):
            models[1].extract(picture)

    def test_a_file_that_cannot_be_read_stops_or_has_a_row_of_nan(self, models, paths, tmp_path, caplog):
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(b"no picture")
        pictures = [paths[0], str(bad), paths[1], str(tmp_path / "absent.jpg")]
        with pytest.raises(UserError, match="bad.jpg.*skip_bad=True, tools/.* --skip-bad") as error:
            models[1].extract(pictures)
        assert "ON_BAD_IMAGE" not in str(error.value)
        features = models[1].extract(pictures, skip_bad=True)
        assert np.isnan(features[[1, 3]]).all()
        assert_same(features[[0, 2]], models[1].extract(paths[:2]))
        assert "2 of 4 pictures cannot be read" in caplog.text


class TestViews:
    @pytest.mark.parametrize("name", ["models", "per_image"])
    @pytest.mark.parametrize(
        ("views", "indices"),
        [
            ([], []),
            ([0], [0]),
            (["ground"], [1]),
            ("aerial", [0]),
            (1, [1]),
            (["ground", 0], [1, 0]),
            (np.array([1]), [1]),
            (None, [0, 1]),
        ],
    )
    def test_the_chosen_ones_are_joined_in_their_order(self, request, paths, name, views, indices):
        model = request.getfixturevalue(name)
        model = model[2] if isinstance(model, dict) else model
        every = model.extract(paths)
        parts = [every[:, PERSON], *(every[:, VIEWS[index]] for index in indices)]
        assert_same(model.extract(paths, views), np.concatenate(parts, axis=1))

    def test_the_others_are_not_computed(self, models, paths):
        rows = []
        unet = models[2].model.generator.unet
        handle = unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
        totals = {}
        for views in ((), (1,), (0, 1)):
            rows.clear()
            models[2].extract(paths, views)
            totals[views] = sum(rows)
        handle.remove()
        assert totals[()] == 0
        assert totals[0, 1] == 2 * totals[1,] > 0

    @pytest.mark.parametrize("views", [[2], [-1], ["grund"], [0, "aerial"], ["0"]])
    def test_unknown_and_repeated_ones_are_refused(self, models, paths, views):
        with pytest.raises(UserError, match="view|each once"):
            models[2].extract(paths, views)

    def test_stage_1_has_none(self, models, paths):
        assert_same(models[1].extract(paths, views=[]), models[1].extract(paths))
        with pytest.raises(UserError, match="SDReIDStage1 generates none"):
            models[1].extract(paths, views=["aerial"])


class TestNamesForNoise:
    def test_an_image_opened_from_a_file_has_the_files_name(self, per_image, paths):
        assert_same(per_image.extract([Image.open(path) for path in paths]), per_image.extract(paths))

    def test_only_the_name_of_the_file_counts(self, per_image, paths, tmp_path):
        same, other = tmp_path / paths[0].split("/")[-1], tmp_path / "other.jpg"
        for copy in (same, other):
            shutil.copy(paths[0], copy)
        expected = per_image.extract(paths[0])
        assert_same(per_image.extract(same), expected)
        generated = per_image.extract(other)[:, D:]
        assert np.abs(generated - expected[:, D:]).max() > 1e-2

    def test_pictures_without_one_have_the_noise_of_the_empty_name(self, models, per_image, paths):
        pixels = [np.asarray(Image.open(path)) for path in paths]
        features = per_image.extract(pixels)
        assert_same(per_image.extract(pixels[::-1])[::-1], features)
        assert np.abs(features[:, D:] - per_image.extract(paths)[:, D:]).max() > 1e-2
        # which is the sequence that NOISE common gives to every image
        assert_same(features, models[2].extract(paths))

    def test_a_picture_that_is_cut_short_is_an_error_of_ours(self, models, paths, tmp_path):
        cut = tmp_path / "cut.jpg"
        with open(paths[0], "rb") as whole:
            cut.write_bytes(whole.read()[:-200])
        with pytest.raises(UserError, match="cannot decode a PIL image"):
            models[1].extract([Image.open(cut)])
        assert np.isnan(models[1].extract([Image.open(cut)], skip_bad=True)).all()


class TestConfiguration:
    @pytest.fixture
    def alone(self, checkpoints, tmp_path):
        """The checkpoint without its config.yaml."""
        return shutil.copy(checkpoints[1], tmp_path / "model_best.pth")

    def test_without_a_file_the_checkpoints_own_is_taken(self, alone, models, paths):
        model = ReIDModel.from_checkpoint(alone, device="cpu")
        assert model.cfg.TEST.IMS_PER_BATCH == 4
        assert_same(model.extract(paths), models[1].extract(paths))

    def test_the_file_beside_the_checkpoint_wins_over_it(self, alone, tmp_path, checkpoints):
        text = checkpoints[1].with_name("config.yaml").read_text()
        (tmp_path / "config.yaml").write_text(text.replace("IMS_PER_BATCH: 4", "IMS_PER_BATCH: 5"))
        assert ReIDModel.from_checkpoint(alone, device="cpu").cfg.TEST.IMS_PER_BATCH == 5

    def test_a_given_one_wins_and_options_win_over_all(self, alone, checkpoints):
        cfg = evaluation_cfg(checkpoints[1], "TEST.IMS_PER_BATCH", "6")
        assert ReIDModel.from_checkpoint(alone, cfg, "cpu").cfg.TEST.IMS_PER_BATCH == 6
        options = ("TEST.IMS_PER_BATCH", "7")
        model = ReIDModel.from_checkpoint(alone, checkpoints[1].with_name("config.yaml"), "cpu", options)
        assert model.cfg.TEST.IMS_PER_BATCH == 7

    def test_none_anywhere_is_an_error(self, alone):
        state = torch.load(alone, weights_only=True)
        torch.save({"model": state["model"]}, alone)
        with pytest.raises(UserError, match="no configuration for"):
            ReIDModel.from_checkpoint(alone)

    def test_a_checkpoint_of_the_other_stage_is_refused(self, checkpoints):
        with pytest.raises(UserError, match="is a checkpoint of SDReIDStage1"):
            ReIDModel.from_checkpoint(checkpoints[1], checkpoints[2].with_name("config.yaml"), "cpu")
