"""CARGO: 5 aerial and 8 ground cameras, rendered (Zhang et al., CVPR 2024)."""

import re

from fastreid.data.datasets.base import Benchmark, NameFormat, Protocol, PublishedSizes

AERIAL, GROUND = 0, 1
FOLDERS = {"query": ("query",), "gallery": ("gallery",)}
ACROSS = {**FOLDERS, "camera_is_view": True}

# The publication counts queries of the whole test set only; the galleries of one view are parts of its own.
ALL = PublishedSizes(query=312, gallery=50_712)
IN_AERIAL, IN_GROUND = PublishedSizes(gallery=32_268), PublishedSizes(gallery=18_444)

CARGO = Benchmark(
    name="CARGO",
    folder="CARGO",
    view_names=("aerial", "ground"),
    names=NameFormat(
        pattern=re.compile(r"Cam(?P<camera>\d{1,2})_(?:day|night)_(?P<pid>\d{1,9})_\d+", re.ASCII),
        example="Cam2_day_2519_320.jpg (camera, day or night, person, index)",
        cameras={camera: (camera - 1, AERIAL if camera <= 5 else GROUND) for camera in range(1, 14)},
    ),
    train="train",
    protocols=(
        Protocol(**FOLDERS, published=ALL),
        Protocol("_AA", **FOLDERS, query_view=AERIAL, gallery_view=AERIAL, published=IN_AERIAL),
        Protocol("_GG", **FOLDERS, query_view=GROUND, gallery_view=GROUND, published=IN_GROUND),
        Protocol("_AG", **ACROSS, published=ALL),
        Protocol("_A2G", **ACROSS, query_view=AERIAL, gallery_view=GROUND, published=IN_GROUND),
        Protocol("_G2A", **ACROSS, query_view=GROUND, gallery_view=AERIAL, published=IN_AERIAL),
    ),
    published=PublishedSizes(train=51_451, train_ids=2_500, images=51_451 + 51_024, ids=5_000),
)
