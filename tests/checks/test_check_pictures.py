"""Every picture is decoded."""

import pytest
from PIL import Image

from fastreid.checks.datasets import check_datasets
from fastreid.checks.pictures import check_pictures, unreadable_pictures


def damage(cargo) -> dict[str, str]:
    """Four unreadable pictures, by what is wrong with them."""
    folder = cargo / "train" / "Cam1"
    pictures = sorted(map(str, folder.iterdir()))
    Image.new("RGB", (200, 400)).save(pictures[0])
    with open(pictures[0], "r+b") as file:
        file.truncate(900)
    with open(pictures[1], "w") as file:
        file.write("<html>not found</html>")
    open(pictures[2], "w").close()
    return {"truncated": pictures[0], "cannot identify": pictures[1], "empty": pictures[2]}


@pytest.mark.parametrize("workers", [1, 5])
def test_unreadable_pictures_are_found_with_their_reasons(cargo, workers):
    damaged = damage(cargo)
    paths = sorted(map(str, cargo.rglob("*.jpg")))
    missing = str(cargo / "train" / "none.jpg")
    bad = unreadable_pictures([*paths, missing], workers)
    assert list(bad) == [*sorted(damaged.values()), missing]
    for reason, path in damaged.items():
        assert reason in bad[path]
    assert bad[missing] == "missing"


def test_training_and_test_pictures_are_told_apart(cfg, cargo, said):
    damage(cargo)
    findings = check_pictures(cfg, check_datasets(cfg), workers=2)
    text = said(findings, "error", "training pictures")
    assert text.startswith("3 of 48 cannot be decoded: ")
    assert text.endswith("| restore the files, or DATALOADER.ON_BAD_IMAGE skip")
    assert said(findings, "ok", "test pictures").startswith("all 36 can be decoded")


def test_pictures_that_training_may_skip_are_a_warning(cfg, cargo, said):
    damage(cargo)
    (cargo / "query/Cam1/Cam1_day_20_0.jpg").write_bytes(b"no picture")
    cfg.DATALOADER.ON_BAD_IMAGE = "skip"
    findings = check_pictures(cfg, check_datasets(cfg), workers=2)
    assert "3 of 48" in said(findings, "warning", "training pictures")
    assert "1 of 36" in said(findings, "error", "test pictures")
