"""AG-ReIDv1: one UAV and one CCTV camera (Nguyen et al., ICME 2023). The camera id is the view."""

import re

from fastreid.data.datasets.base import Benchmark, NameFormat, Protocol, PublishedSizes

# The person id is all digits before the camera: person, time (MMDD and 0 am / 1 pm) and altitude.
AG_REID_NAME = re.compile(
    r"P(?P<person>\d{1,6})T(?P<time>\d{1,6})A(?P<altitude>\d)C(?P<camera>\d)F\d+", re.ASCII
)
AG_REID_EXAMPLE = "P0006T02140A0C0F1831.jpg (person, time, altitude, camera, frame)"

AERIAL_QUERY, AERIAL_GALLERY = "query_all_c0", "bounding_box_test_all_c0"
GROUND_QUERY, GROUND_GALLERY = "query_all_c3", "bounding_box_test_all_c3"

# The plain name evaluates both directions at once.
AG_REID_V1 = Benchmark(
    name="AG_ReID_v1",
    folder="AG_ReID_v1",
    view_names=("aerial", "cctv"),
    names=NameFormat(pattern=AG_REID_NAME, example=AG_REID_EXAMPLE, cameras={0: (0, 0), 3: (1, 1)}),
    train="bounding_box_train",
    protocols=(
        Protocol(query=(AERIAL_QUERY, GROUND_QUERY), gallery=(AERIAL_GALLERY, GROUND_GALLERY)),
        Protocol("_AG", query=(AERIAL_QUERY,), gallery=(GROUND_GALLERY,)),
        Protocol("_GA", query=(GROUND_QUERY,), gallery=(AERIAL_GALLERY,)),
    ),
    attributes="qut_attribute_v4_88_attributes.mat",
    published=PublishedSizes(images=21_983, ids=388),
)
