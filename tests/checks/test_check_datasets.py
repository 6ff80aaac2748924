"""The datasets of a configuration: every fault is named, and hides no other."""

import json
import shutil

import pytest
from PIL import Image

from fastreid.checks.datasets import check_datasets
from fastreid.data import DATASET_REGISTRY

# As published: training images and identities, query and gallery images (None: no figure for the split).
PUBLISHED = {
    "CARGO": (51_451, 2_500, 312, 50_712),
    "CARGO_AA": (51_451, 2_500, None, 32_268),
    "CARGO_GG": (51_451, 2_500, None, 18_444),
    "CARGO_AG": (51_451, 2_500, 312, 50_712),
    "CARGO_A2G": (51_451, 2_500, None, 18_444),
    "CARGO_G2A": (51_451, 2_500, None, 32_268),
    "AG_ReID_v1": (None, None, None, None),
    "AG_ReID_v2_AC": (None, 807, None, None),
    "LAGPeR": (40_770, None, 3_046, 20_204),
    "LAGPeR_A2G": (40_770, None, 3_046, 15_533),
    "LAGPeR_G2A": (40_770, None, 3_046, 7_717),
    "LAGPeR_G2AG": (40_770, None, 3_046, 20_204),
    "G2APS_ReID": (100_871, None, 4_876, 37_202),
    "G2APS_ReID_A2G": (100_871, None, 4_876, 37_202),
    "G2APS_ReID_G2A": (100_871, None, 4_876, 62_791),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    dataset = DATASET_REGISTRY.get(name)(root="nowhere")
    train, test = dataset.benchmark.published, dataset.protocol.published
    assert (train.train, train.train_ids, test.query, test.gallery) == PUBLISHED[name]


def levels(findings) -> dict[str, list[str]]:
    return {level: [f.check for f in findings if f.level == level] for level in ("warning", "error")}


def test_counts_of_split_view_and_camera_stand_beside_the_published_ones(cfg, cargo, said):
    data = check_datasets(cfg)
    text = said(data.findings, "warning", "CARGO train")
    assert "48 images (published: 51,451) of 6 identities (published: 2,500)" in text
    assert "views aerial 24, ground 24; cameras 0: 12, 2: 12, 5: 12, 12: 12" in text
    assert "complete the folder" in text
    across = said(data.findings, "ok", "CARGO_A2G query")
    assert "6 images of 3 identities; views aerial 6, ground 0; cameras 0: 3, 2: 3" in across
    assert "12 images (published: 18,444)" in said(data.findings, "warning", "CARGO_A2G gallery")
    assert "12 images (published: 312)" in said(data.findings, "warning", "CARGO_AG query")
    assert said(data.findings, "ok", "CARGO_A2G matches").startswith(
        "6 of 6 queries have a match in another view"
    )
    whole = said(data.findings, "ok", str(cargo))
    assert whole.startswith("84 different images of 9 identities")  # 48 + 12 + 24
    assert "102,475 images of 5,000 identities" in whole
    assert levels(data.findings)["error"] == []
    assert [dataset.name for dataset in (*data.train, *data.tests)] == ["CARGO", "CARGO_A2G", "CARGO_AG"]


@pytest.mark.parametrize("complete", [True, False])
def test_people_that_we_rendered_have_no_published_sizes(cfg, cargo, said, complete):
    manifest = {
        "author": "fastreid synthetic benchmark",
        "complete": complete,
        "images": 84,
        "parameters": {},
    }
    (cargo / "synthetic_manifest.json").write_text(json.dumps(manifest))
    findings = check_datasets(cfg).findings
    assert "48 images of 6 identities" in said(findings, "ok", "CARGO train")
    assert "rendered" in said(findings, "ok" if complete else "error", str(cargo))
    assert levels(findings)["warning"] == []


def test_a_missing_folder_is_named_once_and_the_rest_is_counted(cfg, cargo, said):
    shutil.rmtree(cargo / "query")
    data = check_datasets(cfg)
    text = said(data.findings, "error", "CARGO_A2G query")
    assert f"folder not found: {cargo / 'query'}" in text
    assert "| set DATASETS.ROOT" in text
    assert "48 images" in said(data.findings, "warning", "CARGO train")
    assert data.tests == []


def test_a_missing_benchmark_and_unknown_names(cfg, said):
    cfg.DATASETS.NAMES = ["AG_ReID_v2", "CARGA", "CARGO"]
    cfg.DATASETS.TESTS = []
    data = check_datasets(cfg)
    assert "AG_ReID_v2/train_all" in said(data.findings, "error", "AG_ReID_v2 train")
    assert "Did you mean 'CARGO'?" in said(data.findings, "error", "CARGA")
    assert "48 images" in said(data.findings, "warning", "CARGO train")
    assert said(data.findings, "error", "DATASETS.TESTS") == "is empty | name a protocol, such as CARGO_AG"


def test_names_that_cannot_be_read_are_counted_and_left_out(cfg, cargo, said):
    for name in ("train/Cam1/holiday.jpg", "train/Cam1/Cam99_day_1_0.jpg", "query/Cam3/x.png"):
        Image.new("RGB", (4, 8)).save(cargo / name)
    findings = check_datasets(cfg).findings
    text = said(findings, "error", "CARGO train names")
    assert text.startswith("2 file names cannot be read, beside 48 that can")
    assert "holiday.jpg" in text
    assert "Cam99_day_1_0.jpg" in text
    assert "expected Cam2_day_2519_320.jpg" in text
    assert "1 file names cannot be read, beside 18" in said(
        findings, "error", "CARGO_A2G query and gallery names"
    )
    assert levels(findings)["error"] == ["CARGO train names", "CARGO_A2G query and gallery names"]


@pytest.mark.parametrize(("policy", "level"), [("error", "error"), ("skip", "warning")])
def test_empty_files_stop_training_unless_they_are_to_be_skipped_and_always_evaluation(
    cfg, cargo, said, policy, level
):
    cfg.DATALOADER.ON_BAD_IMAGE = policy
    cfg.DATASETS.TESTS = ["CARGO_A2G"]
    (cargo / "train/Cam1/Cam1_day_10_0.jpg").write_bytes(b"")
    (cargo / "gallery/Cam6/Cam6_day_20_0.jpg").write_bytes(b"")
    findings = check_datasets(cfg).findings
    (text,) = [
        f"{f.found} {f.fix}"
        for f in findings
        if f.level == level and "empty" in f.found and "train" in f.check
    ]
    assert "1 of the 48 images" in text
    assert "Cam1_day_10_0.jpg" in text
    assert "1 of the 18 images" in said(findings, "error", "CARGO_A2G files")


def test_queries_without_a_match(cfg, cargo, said):
    for path in (cargo / "gallery").rglob("*_day_22_*.jpg"):
        path.unlink()
    findings = check_datasets(cfg).findings
    assert "4 of 6 queries have a match in another view; the others" in said(
        findings, "ok", "CARGO_A2G matches"
    )
    assert "8 of 12 queries" in said(findings, "ok", "CARGO_AG matches")


def test_a_protocol_in_which_nothing_matches(cfg, cargo, said):
    for path in (cargo / "gallery").rglob("*.jpg"):
        path.rename(path.with_name(path.name.replace("_day_2", "_day_9")))
    text = said(check_datasets(cfg).findings, "error", "CARGO_A2G matches")
    assert "no query has an image of its identity in another view" in text


def test_a_protocol_with_fewer_distractors_than_are_asked_for(cfg, said):
    cfg.TEST.EQUAL_TERMS.DISTRACTORS = 99
    text = said(check_datasets(cfg).findings, "error", "CARGO_A2G matches")
    assert "gallery images of other persons, fewer than TEST.EQUAL_TERMS.DISTRACTORS 99" in text


def lagper(root, lines: str) -> None:
    for name in (
        "bounding_box_train/a/0001_c3_1.jpg",
        "bounding_box_train/a/0001_c1_1.jpg",
        "query/0002_c3_1.jpg",
    ):
        (root / "LAGPeR" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16)).save(root / "LAGPeR" / name)
    (root / "LAGPeR" / "exp3_A2G+.txt").write_text(lines)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("query/0002_c3_1.jpg\n../x.jpg", "line 2: '../x.jpg'"),
        ("query/0002_c3_1.jpg\ngallery/0002_c1_1.jpg", "of which 1 are missing, first"),
        ("query/0002_c3_1.jpg", "1 usable query images (of 1) and 0 gallery images"),
    ],
)
def test_faults_of_a_protocol_file(cfg, cargo, said, lines, expected):
    lagper(cargo.parent, lines)
    cfg.DATASETS.NAMES = ["LAGPeR"]
    cfg.DATASETS.TESTS = ["LAGPeR_A2G", "LAGPeR_G2A"]
    findings = check_datasets(cfg).findings
    assert expected in said(findings, "error", "LAGPeR_A2G query")
    assert "protocol file not found" in said(findings, "error", "LAGPeR_G2A query")
    assert "2 images (published: 40,770) of 1 identities" in said(findings, "warning", "LAGPeR train")


def test_data_of_your_own_from_a_list(cfg, cargo, said):
    rows = ["path,pid,camid,view,split"]
    for split, images in (("train", 2), ("query", 1), ("gallery", 1)):
        for camera, view in ((1, "air"), (6, "ground")):
            paths = sorted((cargo / split / f"Cam{camera}").iterdir())[:images]
            rows += [
                f"{path.relative_to(cargo)},{path.name.split('_')[2]},{camera},{view},{split}"
                for path in paths
            ]
    (cargo / "own.csv").write_text("\n".join(rows))
    cfg.DATASETS.NAMES = cfg.DATASETS.TESTS = ["CSVDataset"]
    cfg.DATASETS.CSV = str(cargo / "own.csv")
    findings = check_datasets(cfg).findings
    assert "4 images of 1 identities; views air 2, ground 2" in said(findings, "ok", "CSVDataset train")
    assert levels(findings) == {"warning": [], "error": []}
    cfg.DATASETS.CSV = str(cargo / "none.csv")
    assert "none.csv" in check_datasets(cfg).findings[0].found


def test_evaluation_alone_reads_no_training_data(cfg, cargo):
    shutil.rmtree(cargo / "train")
    data = check_datasets(cfg, training=False)
    assert data.train == []
    assert levels(data.findings)["error"] == []
