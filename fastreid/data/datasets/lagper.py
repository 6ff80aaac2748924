"""LAGPeR: 7 aerial and 14 ground cameras (Wang et al., 2025)."""

import re

from fastreid.data.datasets.base import Benchmark, NameFormat, Protocol, PublishedSizes

AERIAL_CAMERAS = frozenset({3, 6, 9, 13, 16, 19, 22})

# Cameras are numbered 1 to 22 without a 10; the ids close the gap: 1 to 21.
LAGPER = Benchmark(
    name="LAGPeR",
    folder="LAGPeR",
    view_names=("aerial", "ground"),
    names=NameFormat(
        pattern=re.compile(r"(?P<pid>-?\d{1,9})_c(?P<camera>\d{1,2})", re.ASCII),
        example="0012_c3_000120.jpg (person, camera)",
        cameras={
            camera: (camera - (camera > 10), 0 if camera in AERIAL_CAMERAS else 1)
            for camera in range(1, 23)
            if camera != 10
        },
    ),
    train="bounding_box_train",
    protocols=(
        Protocol(list_file="exp5_G2A+G.txt", published=PublishedSizes(query=3_046, gallery=20_204)),
        Protocol("_A2G", list_file="exp3_A2G+.txt", published=PublishedSizes(query=3_046, gallery=15_533)),
        Protocol("_G2A", list_file="exp4_G2A+.txt", published=PublishedSizes(query=3_046, gallery=7_717)),
        Protocol("_G2AG", list_file="exp5_G2A+G.txt", published=PublishedSizes(query=3_046, gallery=20_204)),
    ),
    published=PublishedSizes(train=40_770, images=63_841, ids=4_231),
)
