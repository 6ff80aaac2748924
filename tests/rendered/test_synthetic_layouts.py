"""The written folders, read back by the facts of the published benchmarks and not by the writer's code."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image
from scipy.io import loadmat

from fastreid.rendered import LAYOUTS, BenchmarkSpec, make_plan
from fastreid.utils.errors import UserError

AG_NAME = re.compile(r"P(\d{4})T(\d{4})([01])A([012])C([023])F\d+\.jpg")
AG_VIEW = {"0": "aerial", "3": "cctv", "2": "wearable"}
LAGPER_AERIAL = {3, 6, 9, 13, 16, 19, 22}


def images(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.jpg"))
    assert found, f"no images in {folder}"
    return found


def ag_fields(path: Path) -> tuple[str, str]:
    """(pid, view) of an AG-ReID name: the digits of P, T and A joined, and the camera's view."""
    person, date, half, altitude, camera = AG_NAME.fullmatch(path.name).groups()
    return person + date + half + altitude, AG_VIEW[camera]


def lines_of(path: Path) -> list[str]:
    text = path.read_text()
    assert text.endswith("\n")
    return text.splitlines()


def split_protocol(folder: Path, name: str) -> tuple[list[Path], list[Path]]:
    """(query, gallery) paths of a protocol file; every line names a file, and none twice."""
    lines = lines_of(folder / name)
    assert len(lines) == len(set(lines))
    assert all((folder / line).is_file() for line in lines)
    query = [folder / line for line in lines if line.split("/")[0].startswith("query")]
    gallery = [folder / line for line in lines if not line.split("/")[0].startswith("query")]
    return query, gallery


def assert_matched(query, gallery, key, camera) -> None:
    """Every query has a gallery image of the same person from another camera, and some of other people."""
    cameras = defaultdict(set)
    for path in gallery:
        cameras[key(path)].add(camera(path))
    assert query
    for path in query:
        assert cameras[key(path)] - {camera(path)}, f"{path} has no match"
    assert len(cameras) > 1


def cargo_fields(path: Path) -> tuple[str, int]:
    camera, pid, _ = re.fullmatch(r"Cam(\d+)_(?:day|night)_(\d+)_(\d+)\.jpg", path.name).groups()
    assert path.parent.name == f"Cam{camera}"
    return pid, int(camera)


def test_cargo(written, spec):
    folder = written / "CARGO"
    train, query, gallery = (
        [cargo_fields(p) for p in images(folder / s)] for s in ("train", "query", "gallery")
    )
    pids = {pid for pid, _ in train}
    assert len(pids) == spec.train_ids
    test_pids = {pid for pid, _ in query}
    assert test_pids == {pid for pid, _ in gallery}
    assert len(test_pids) == spec.test_ids
    assert not pids & test_pids
    for pid in test_pids:
        seen = {camera for p, camera in gallery if p == pid}
        assert seen == {camera for p, camera in query if p == pid}
        assert len([c for c in seen if c <= 5]) >= 2, "an aerial query has an aerial match in another camera"
        assert len([c for c in seen if c >= 6]) >= 2, "a ground query has a ground match in another camera"
        assert seen <= set(range(1, 14))


def test_cargo_spreads_people_over_all_its_cameras():
    plan = make_plan("CARGO", BenchmarkSpec(train_ids=60, test_ids=60))
    for split in ("train", "query", "gallery"):
        assert {i.sighting.camera for i in plan.images if i.sighting.split == split} == set(range(1, 14))
    assert {i.path.split("_")[1] for i in plan.images} == {"day", "night"}


def test_ag_reid_v1(written, spec):
    folder = written / "AG_ReID_v1"
    splits = {
        name: [ag_fields(path) for path in images(folder / name)]
        for name in (
            "bounding_box_train",
            "query_all_c0",
            "bounding_box_test_all_c3",
            "query_all_c3",
            "bounding_box_test_all_c0",
        )
    }
    train = {pid for pid, _ in splits["bounding_box_train"]}
    assert len(train) == spec.train_ids
    assert {view for _, view in splits["bounding_box_train"]} == {"aerial", "cctv"}
    for query, gallery, query_view, gallery_view in (
        ("query_all_c0", "bounding_box_test_all_c3", "aerial", "cctv"),
        ("query_all_c3", "bounding_box_test_all_c0", "cctv", "aerial"),
    ):
        assert {view for _, view in splits[query]} == {query_view}
        assert {view for _, view in splits[gallery]} == {gallery_view}
        people = {pid for pid, _ in splits[query]}
        assert people == {pid for pid, _ in splits[gallery]}
        assert len(people) == spec.test_ids
        assert not people & train


@pytest.mark.parametrize(
    ("protocol", "query_view", "gallery_view"),
    [
        ("exp1_aerial_to_cctv.txt", "aerial", "cctv"),
        ("exp2_aerial_to_wearable.txt", "aerial", "wearable"),
        ("exp4_cctv_to_aerial.txt", "cctv", "aerial"),
        ("exp5_wearable_to_aerial.txt", "wearable", "aerial"),
    ],
)
def test_ag_reid_v2_protocols(written, spec, protocol, query_view, gallery_view):
    folder = written / "AG_ReID_v2"
    query, gallery = split_protocol(folder, protocol)
    assert {ag_fields(p)[1] for p in query} == {query_view}
    assert {ag_fields(p)[1] for p in gallery} == {gallery_view}
    assert {p.relative_to(folder).parts[0] for p in query} == {"query"}
    assert {p.relative_to(folder).parts[0] for p in gallery} == {"gallery"}
    assert_matched(query, gallery, lambda p: ag_fields(p)[0], lambda p: ag_fields(p)[1])
    train = [ag_fields(p) for p in images(folder / "train_all")]
    assert len({pid for pid, _ in train}) == spec.train_ids
    assert {view for _, view in train} == {"aerial", "cctv", "wearable"}
    assert not {pid for pid, _ in train} & {ag_fields(p)[0] for p in query + gallery}


@pytest.mark.parametrize(
    ("benchmark", "file", "folder"),
    [
        ("AG_ReID_v1", "qut_attribute_v4_88_attributes.mat", "bounding_box_train"),
        ("AG_ReID_v2", "qut_attribute_v8.mat", "train_all"),
    ],
)
def test_attributes_name_the_identities_of_the_images(written, spec, benchmark, file, folder):
    struct = loadmat(written / benchmark / file, simplify_cells=True)["qut_attribute"]
    assert set(struct) == {"train", "test"}
    for split, count in (("train", spec.train_ids), ("test", spec.test_ids)):
        index = list(struct[split].pop("image_index"))
        assert len(index) == len(set(index)) == count
        assert len(struct[split]) == 88
        assert all(len(vector) == count and set(vector) <= {1, 2} for vector in struct[split].values())
        if split == "train":
            assert set(index) == {ag_fields(p)[0] for p in images(written / benchmark / folder)}


def lagper_fields(path: Path) -> tuple[int, int]:
    return tuple(int(v) for v in re.match(r"(-?\d+)_c(\d+)_", path.name).groups())


@pytest.mark.parametrize(
    ("protocol", "query_aerial", "gallery_aerial"),
    [
        ("exp3_A2G+.txt", {True}, {False}),
        ("exp4_G2A+.txt", {False}, {True}),
        ("exp5_G2A+G.txt", {False}, {True, False}),
    ],
)
def test_lagper_protocols(written, spec, protocol, query_aerial, gallery_aerial):
    query, gallery = split_protocol(written / "LAGPeR", protocol)
    assert {lagper_fields(p)[1] in LAGPER_AERIAL for p in query} == query_aerial
    assert {lagper_fields(p)[1] in LAGPER_AERIAL for p in gallery} == gallery_aerial
    assert len({lagper_fields(p)[0] for p in query}) == spec.test_ids
    assert_matched(query, gallery, lambda p: lagper_fields(p)[0], lambda p: lagper_fields(p)[1])


def test_lagper_training_folder(written, spec):
    folder = written / "LAGPeR"
    train = images(folder / "bounding_box_train")
    assert all(p.parent.parent == folder / "bounding_box_train" for p in train), "one subfolder deep"
    pids = {lagper_fields(p)[0] for p in train}
    assert -1 in pids
    assert len(pids - {-1}) == spec.train_ids
    test = split_protocol(folder, "exp5_G2A+G.txt")
    assert not pids & {lagper_fields(p)[0] for p in test[0] + test[1]}


def test_lagper_uses_21_cameras_and_no_tenth():
    plan = make_plan("LAGPeR", BenchmarkSpec(train_ids=80, test_ids=80))
    cameras = {int(re.search(r"_c(\d+)_", image.path).group(1)) for image in plan.images}
    assert cameras == set(range(1, 23)) - {10}


def g2aps_fields(path: Path) -> tuple[int, str]:
    pid, camera = re.match(r"(-?\d+)_c(\d+)v\d+", path.name).groups()
    return int(pid), "aerial" if camera == "0" else "ground"


@pytest.mark.parametrize(
    ("protocol", "query_view", "gallery_view"),
    [("exp3_A2G+.txt", "aerial", "ground"), ("exp4_G2A+.txt", "ground", "aerial")],
)
def test_g2aps(written, spec, protocol, query_view, gallery_view):
    folder = written / "G2APS-ReID"
    query, gallery = split_protocol(folder, protocol)
    assert {g2aps_fields(p)[1] for p in query} == {query_view}
    assert {g2aps_fields(p)[1] for p in gallery} == {gallery_view}
    assert_matched(query, gallery, lambda p: g2aps_fields(p)[0], lambda p: g2aps_fields(p)[1])
    train = images(folder / "bounding_box_train")
    assert all(p.parent.parent == folder / "bounding_box_train" for p in train)
    pids = {g2aps_fields(p)[0] for p in train}
    assert -1 in pids
    assert len(pids - {-1}) == spec.train_ids
    assert not pids & {g2aps_fields(p)[0] for p in query + gallery}


@pytest.mark.parametrize("benchmark", LAYOUTS)
def test_pictures_are_jpeg_files_of_the_size_asked_for(written, spec, benchmark):
    for path in images(written / benchmark):
        with Image.open(path) as picture:
            picture.load()
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            assert (picture.height, picture.width) == spec.size


@pytest.mark.parametrize("benchmark", LAYOUTS)
def test_the_plan_is_the_number_of_images_promised(benchmark):
    """images_per_camera counts one identity in one camera that sees it; junk images come on top."""
    spec = BenchmarkSpec(train_ids=12, test_ids=9, images_per_camera=8)
    plan = make_plan(benchmark, spec)
    per_camera = defaultdict(list)
    for image in plan.images:
        if image.sighting.label != "-1":
            per_camera[image.sighting.identity, image.sighting.camera].append(image.sighting.split)
    assert len({identity for identity, _ in per_camera}) == 21
    for (identity, _), splits in per_camera.items():
        expected = ["train"] * 8 if identity <= 12 else ["query"] * 2 + ["gallery"] * 6
        assert splits == expected
    paths = [image.path for image in plan.images]
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("benchmark", LAYOUTS)
def test_a_contact_sheet_lies_beside_the_data(written, benchmark):
    with Image.open(written / benchmark / "contact_sheet.png") as sheet:
        sheet.load()
        assert sheet.width > 200
    assert not list(written.joinpath(benchmark).rglob(".*")), "nothing temporary is left"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"train_ids": 0}, "--train-ids"),
        ({"test_ids": -3}, "--test-ids"),
        ({"images_per_camera": 1}, "--images-per-camera"),
        ({"seed": -1}, "--seed"),
        ({"size": (0, 64)}, "--size"),
        ({"size": (64, 5000)}, "--size"),
        ({"train_ids": 9000}, "--train-ids"),
    ],
)
def test_numbers_that_make_no_benchmark_are_named(changed, named):
    with pytest.raises(UserError, match=named):
        BenchmarkSpec(**changed)


def test_an_unknown_benchmark_gets_the_nearest_name():
    with pytest.raises(UserError, match="AG_ReID_v2"):
        make_plan("AG-ReID-v2", BenchmarkSpec())
