"""G2APS-ReID: UAV and ground cameras. The camera id is the view: 0 aerial, any other camera 1, ground."""

import re

from fastreid.data.datasets.base import Benchmark, NameFormat, Protocol, PublishedSizes

G2APS_REID = Benchmark(
    name="G2APS_ReID",
    folder="G2APS-ReID",
    view_names=("aerial", "ground"),
    names=NameFormat(
        pattern=re.compile(r"(?P<pid>-?\d{1,9})_c(?P<camera>\d{1,2})v\d+", re.ASCII),
        example="0012_c1v2_000120.jpg (person, camera and video)",
        cameras={0: (0, 0)},
        other_cameras=(1, 1),
    ),
    train="bounding_box_train",
    protocols=(
        Protocol(list_file="exp3_A2G+.txt", published=PublishedSizes(query=4_876, gallery=37_202)),
        Protocol("_A2G", list_file="exp3_A2G+.txt", published=PublishedSizes(query=4_876, gallery=37_202)),
        Protocol("_G2A", list_file="exp4_G2A+.txt", published=PublishedSizes(query=4_876, gallery=62_791)),
    ),
    published=PublishedSizes(train=100_871),
)
