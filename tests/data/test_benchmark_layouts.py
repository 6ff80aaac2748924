"""Every benchmark's folders, names, protocols and ids, as the published datasets have them."""

import os
from pathlib import Path

import pytest

from fastreid.data import DATASET_REGISTRY, ReIDDataset, Sample, describe
from fastreid.utils.errors import UserError


def dataset(name: str, root: Path) -> ReIDDataset:
    return DATASET_REGISTRY.get(name)(root=str(root))


def short(samples: list[Sample]) -> list[tuple[str, int, int, int]]:
    """(file name, pid, camera, view), sorted."""
    return sorted((os.path.basename(s.path), s.pid, s.camid, s.viewid) for s in samples)


def test_all_registry_names_exist():
    expected = """
        CARGO CARGO_AA CARGO_GG CARGO_AG CARGO_A2G CARGO_G2A
        AG_ReID_v1 AG_ReID_v1_AG AG_ReID_v1_GA
        AG_ReID_v2 AG_ReID_v2_AC AG_ReID_v2_CA AG_ReID_v2_AW AG_ReID_v2_WA
        LAGPeR LAGPeR_A2G LAGPeR_G2A LAGPeR_G2AG
        G2APS_ReID G2APS_ReID_A2G G2APS_ReID_G2A
        CSVDataset
    """
    assert set(DATASET_REGISTRY) == set(expected.split())
    assert dataset("CARGO_AG", Path("x")).name == "CARGO_AG"


# ---------------------------------------------------------------------------------------------- CARGO
@pytest.fixture
def cargo(image_tree):
    return image_tree(
        [
            "CARGO/train/Cam1/Cam1_day_7_1.jpg",
            "CARGO/train/Cam13/Cam13_night_7_2.jpg",
            "CARGO/query/Cam5/Cam5_day_2519_320.jpg",
            "CARGO/query/Cam6/Cam6_night_2519_1.jpg",
            "CARGO/gallery/Cam2/Cam2_day_2519_321.jpg",
            "CARGO/gallery/Cam10/Cam10_day_2519_3.jpg",
        ]
    )


AERIAL_QUERY, GROUND_QUERY = "Cam5_day_2519_320.jpg", "Cam6_night_2519_1.jpg"
AERIAL_GALLERY, GROUND_GALLERY = "Cam2_day_2519_321.jpg", "Cam10_day_2519_3.jpg"


@pytest.mark.parametrize("name", ["CARGO", "CARGO_AA", "CARGO_GG", "CARGO_AG", "CARGO_A2G", "CARGO_G2A"])
def test_cargo_training_is_the_same_for_every_protocol(cargo, name):
    train = dataset(name, cargo).train
    assert short(train) == [("Cam13_night_7_2.jpg", 7, 12, 1), ("Cam1_day_7_1.jpg", 7, 0, 0)]


@pytest.mark.parametrize(
    ("name", "query", "gallery"),
    [
        (
            "CARGO",
            [(AERIAL_QUERY, 2519, 4, 0), (GROUND_QUERY, 2519, 5, 1)],
            [(GROUND_GALLERY, 2519, 9, 1), (AERIAL_GALLERY, 2519, 1, 0)],
        ),
        ("CARGO_AA", [(AERIAL_QUERY, 2519, 4, 0)], [(AERIAL_GALLERY, 2519, 1, 0)]),
        ("CARGO_GG", [(GROUND_QUERY, 2519, 5, 1)], [(GROUND_GALLERY, 2519, 9, 1)]),
        (
            "CARGO_AG",
            [(AERIAL_QUERY, 2519, 4, 0), (GROUND_QUERY, 2519, 5, 1)],
            [(GROUND_GALLERY, 2519, 9, 1), (AERIAL_GALLERY, 2519, 1, 0)],
        ),
        ("CARGO_A2G", [(AERIAL_QUERY, 2519, 4, 0)], [(GROUND_GALLERY, 2519, 9, 1)]),
        ("CARGO_G2A", [(GROUND_QUERY, 2519, 5, 1)], [(AERIAL_GALLERY, 2519, 1, 0)]),
    ],
)
def test_cargo_protocols(cargo, name, query, gallery):
    protocol = dataset(name, cargo)
    assert short(protocol.query) == sorted(query)
    assert short(protocol.gallery) == sorted(gallery)


@pytest.mark.parametrize("name", ["CARGO", "CARGO_AA", "CARGO_GG", "CARGO_AG", "CARGO_A2G", "CARGO_G2A"])
def test_protocols_across_cargos_views_leave_out_by_view_the_others_by_camera(cargo, name):
    protocol = dataset(name, cargo)
    for sample in protocol.query + protocol.gallery:
        across_views = name in ("CARGO_AG", "CARGO_A2G", "CARGO_G2A")
        assert sample.match_id == (sample.viewid if across_views else sample.camid)


# ------------------------------------------------------------------------------------------ AG-ReID v1
UAV, CCTV = "P0006T02140A0C0F1831.jpg", "P0006T02140A0C3F0007.jpg"
PID = 6021400  # 0006 02140 0


@pytest.mark.parametrize("inner", ["", "image/"])
def test_ag_reid_v1_images_lie_in_the_folder_or_its_image_subfolder(image_tree, inner):
    root = image_tree(
        [
            f"AG_ReID_v1/bounding_box_train/{inner}P0100T12311A2C3F99.jpg",
            f"AG_ReID_v1/query_all_c0/{inner}{UAV}",
            f"AG_ReID_v1/query_all_c3/{inner}{CCTV}",
            f"AG_ReID_v1/bounding_box_test_all_c0/{inner}{UAV}",
            f"AG_ReID_v1/bounding_box_test_all_c3/{inner}{CCTV}",
        ]
    )
    uav, cctv = (UAV, PID, 0, 0), (CCTV, PID, 1, 1)
    both, aerial_to_ground, ground_to_aerial = (
        dataset(f"AG_ReID_v1{suffix}", root) for suffix in ("", "_AG", "_GA")
    )
    assert short(both.train) == [("P0100T12311A2C3F99.jpg", 100123112, 1, 1)]
    assert (short(aerial_to_ground.query), short(aerial_to_ground.gallery)) == ([uav], [cctv])
    assert (short(ground_to_aerial.query), short(ground_to_aerial.gallery)) == ([cctv], [uav])
    assert (short(both.query), short(both.gallery)) == ([uav, cctv], [uav, cctv])
    assert {Path(s.path).parent.name for s in aerial_to_ground.query} == {inner.strip("/") or "query_all_c0"}


# ------------------------------------------------------------------------------------------ AG-ReID v2
def test_ag_reid_v2_has_three_views_and_images_at_any_depth(image_tree):
    names = {view: f"P0006T02140A0C{camera}F{view}.jpg" for view, camera in ((0, 0), (1, 3), (2, 2))}
    root = image_tree(
        [f"AG_ReID_v2/train_all/{'a/b/c/'[: 2 * view]}{name}" for view, name in names.items()]
        + [f"AG_ReID_v2/query/p6/{name}" for name in names.values()]
        + [f"AG_ReID_v2/gallery/{name}" for name in names.values()]
    )
    tables = {"exp1_aerial_to_cctv": (0, 1), "exp2_aerial_to_wearable": (0, 2)}
    tables |= {"exp4_cctv_to_aerial": (1, 0), "exp5_wearable_to_aerial": (2, 0)}
    for table, (query, gallery) in tables.items():
        text = f"query/p6/{names[query]}\r\n\r\ngallery\\{names[gallery]}  "
        (root / "AG_ReID_v2" / f"{table}.txt").write_bytes(text.encode())

    every = sorted((name, PID, view, view) for view, name in names.items())
    plain = dataset("AG_ReID_v2", root)
    assert plain.view_names == ("aerial", "cctv", "wearable")
    assert short(plain.train) == short(plain.query) == short(plain.gallery) == every
    for suffix, (query, gallery) in zip(("AC", "AW", "CA", "WA"), tables.values(), strict=True):
        protocol = dataset(f"AG_ReID_v2_{suffix}", root)
        assert short(protocol.query) == [(names[query], PID, query, query)]
        assert short(protocol.gallery) == [(names[gallery], PID, gallery, gallery)]
    same_file = {s.path for s in plain.query} & {s.path for s in dataset("AG_ReID_v2_AC", root).query}
    assert len(same_file) == 1, "an image has one path, whatever protocol holds it: it is encoded once"


# ---------------------------------------------------------------------------------------------- LAGPeR
def test_lagper_cameras_views_and_junk(image_tree):
    train = [f"0001_c{camera}_s1.jpg" for camera in range(1, 23) if camera != 10] + ["-1_c3_s1.jpg"]
    root = image_tree([f"LAGPeR/bounding_box_train/sub/{name}" for name in train])
    aerial = {3, 6, 9, 13, 16, 19, 22}
    expected = [
        (f"0001_c{camera}_s1.jpg", 1, camera if camera < 10 else camera - 1, int(camera not in aerial))
        for camera in range(1, 23)
        if camera != 10
    ]
    samples = dataset("LAGPeR", root).train
    assert short(samples) == sorted(expected)
    assert sorted({s.camid for s in samples}) == list(range(1, 22))


def test_lagper_protocols_keep_junk_as_gallery_distractors_only(image_tree):
    files = ["query/1/0004_c3_1.jpg", "query/1/-1_c3_1.jpg", "bounding_box_test/0004_c11_1.jpg"]
    files += ["bounding_box_test/-1_c1_2.jpg"]
    root = image_tree([f"LAGPeR/{path}" for path in files])
    for table in ("exp3_A2G+", "exp4_G2A+", "exp5_G2A+G"):
        (root / "LAGPeR" / f"{table}.txt").write_text(
            "\n".join(files if table == "exp5_G2A+G" else files[:3])
        )
    for name in ("LAGPeR", "LAGPeR_G2AG"):
        assert short(dataset(name, root).query) == [("0004_c3_1.jpg", 4, 3, 0)]
        assert short(dataset(name, root).gallery) == [("-1_c1_2.jpg", -1, 1, 1), ("0004_c11_1.jpg", 4, 10, 1)]
    for name in ("LAGPeR_A2G", "LAGPeR_G2A"):
        assert short(dataset(name, root).gallery) == [("0004_c11_1.jpg", 4, 10, 1)]


# ------------------------------------------------------------------------------------------ G2APS-ReID
def test_g2aps_camera_is_the_view_and_junk_does_not_train(image_tree):
    files = ["bounding_box_train/a/0001_c0v1_1.jpg", "bounding_box_train/b/0001_c5v2_1.jpg"]
    files += ["bounding_box_train/b/-1_c5v2_1.jpg", "query/0002_c0v1.jpg", "gallery/0002_c3v1.jpg"]
    root = image_tree([f"G2APS-ReID/{path}" for path in files])
    (root / "G2APS-ReID" / "exp3_A2G+.txt").write_text("query/0002_c0v1.jpg\ngallery/0002_c3v1.jpg")
    (root / "G2APS-ReID" / "exp4_G2A+.txt").write_text("gallery/0002_c0v1.jpg\nquery/0002_c3v1.jpg")
    for name in ("G2APS_ReID", "G2APS_ReID_A2G"):
        protocol = dataset(name, root)
        assert short(protocol.train) == [("0001_c0v1_1.jpg", 1, 0, 0), ("0001_c5v2_1.jpg", 1, 1, 1)]
        assert short(protocol.query) == [("0002_c0v1.jpg", 2, 0, 0)]
        assert short(protocol.gallery) == [("0002_c3v1.jpg", 2, 1, 1)]
    with pytest.raises(UserError, match=r"exp4_G2A\+.txt names 2 images, of which 2 are missing"):
        _ = dataset("G2APS_ReID_G2A", root).query


# ---------------------------------------------------------------------------------------- what is wrong
@pytest.mark.parametrize(
    "file", ["._Cam1_day_7_1.jpg", "Thumbs.db", "readme.txt", ".hidden/Cam1_day_8_1.jpg"]
)
def test_hidden_files_and_other_files_are_no_images(cargo, file):
    path = cargo / "CARGO" / "train" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("x")
    assert len(dataset("CARGO", cargo).train) == 2


def test_a_missing_folder_names_the_path_and_the_variable(tmp_path):
    with pytest.raises(UserError) as error:
        _ = dataset("CARGO", tmp_path).train
    message = str(error.value)
    assert str(tmp_path / "CARGO" / "train") in message
    assert "DATASETS.ROOT" in message
    assert "FASTREID_DATASETS" in message
    assert "\n" not in message


def test_evaluation_needs_no_training_folder_and_training_no_test_folder(cargo, image_tree):
    for unused in ("query", "gallery"):
        (cargo / "CARGO" / unused).rename(cargo / f"away_{unused}")
    assert {sample.pid for sample in dataset("CARGO", cargo).train} == {7}
    for used in ("query", "gallery"):
        (cargo / f"away_{used}").rename(cargo / "CARGO" / used)
    (cargo / "CARGO" / "train").rename(cargo / "away_train")
    assert len(dataset("CARGO", cargo).query) == 2


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("person7.jpg", "Cam2_day_2519_320.jpg"),
        ("Cam14_day_1_1.jpg", "no camera 14"),
        ("Cam0_day_1_1.jpg", "no camera 0"),
    ],
)
def test_a_name_that_cannot_be_read_is_named_with_what_was_expected(cargo, file, message):
    path = cargo / "CARGO" / "train" / "Cam1" / file
    path.write_bytes(b"")
    with pytest.raises(UserError, match=message) as error:
        _ = dataset("CARGO", cargo).train
    assert str(path) in str(error.value)


def test_a_split_without_usable_images_is_reported_with_numbers(cargo, image_tree):
    (cargo / "CARGO" / "query" / "Cam5" / AERIAL_QUERY).unlink()
    with pytest.raises(UserError, match=r"CARGO_A2G: 0 usable query images \(of 1\) and 1 gallery"):
        _ = dataset("CARGO_A2G", cargo).query
    for path in (cargo / "CARGO" / "train").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(UserError, match="no training images in .*train"):
        _ = dataset("CARGO", cargo).train


def test_scanning_order_does_not_depend_on_the_file_system(cargo, monkeypatch):
    expected = [s.path for s in dataset("CARGO", cargo).train]
    scandir = os.scandir

    class Reversed:
        def __init__(self, path):
            with scandir(path) as entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return self.entries

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    assert [s.path for s in dataset("CARGO", cargo).train] == expected == sorted(expected)


def test_the_table_counts_each_split_by_view(cargo):
    lines = describe([dataset("CARGO", cargo), dataset("CARGO_A2G", cargo)]).splitlines()
    cells = [line.split(maxsplit=5) for line in lines[2:]]
    assert cells[0] == ["CARGO", "train", "2", "1", "2", "aerial 1, ground 1"]
    assert cells[4] == ["CARGO_A2G", "query", "1", "1", "1", "aerial 1, ground 0"]
    assert len(cells) == 6
