"""CARGO: 5 aerial and 8 ground cameras, rendered (Zhang et al., CVPR 2024)."""

import re

from fastreid.data.datasets.base import Benchmark, NameFormat, Protocol

AERIAL, GROUND = 0, 1
FOLDERS = {"query": ("query",), "gallery": ("gallery",)}

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
        Protocol(**FOLDERS),
        Protocol("_AA", **FOLDERS, query_view=AERIAL, gallery_view=AERIAL),
        Protocol("_GG", **FOLDERS, query_view=GROUND, gallery_view=GROUND),
        Protocol("_AG", **FOLDERS, camera_is_view=True),
        Protocol("_A2G", **FOLDERS, query_view=AERIAL, gallery_view=GROUND, camera_is_view=True),
        Protocol("_G2A", **FOLDERS, query_view=GROUND, gallery_view=AERIAL, camera_is_view=True),
    ),
)
