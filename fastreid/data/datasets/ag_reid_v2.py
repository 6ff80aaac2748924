"""AG-ReID.v2: UAV, CCTV and wearable cameras (Nguyen et al., TIFS 2024). The camera id is the view."""

from fastreid.data.datasets.ag_reid_v1 import AG_REID_EXAMPLE, AG_REID_NAME
from fastreid.data.datasets.base import Benchmark, NameFormat, Protocol, PublishedSizes

# The plain name evaluates all queries against the whole gallery.
AG_REID_V2 = Benchmark(
    name="AG_ReID_v2",
    folder="AG_ReID_v2",
    view_names=("aerial", "cctv", "wearable"),
    names=NameFormat(
        pattern=AG_REID_NAME, example=AG_REID_EXAMPLE, cameras={0: (0, 0), 3: (1, 1), 2: (2, 2)}
    ),
    train="train_all",
    protocols=(
        Protocol(query=("query",), gallery=("gallery",)),
        Protocol("_AC", list_file="exp1_aerial_to_cctv.txt"),
        Protocol("_AW", list_file="exp2_aerial_to_wearable.txt"),
        Protocol("_CA", list_file="exp4_cctv_to_aerial.txt"),
        Protocol("_WA", list_file="exp5_wearable_to_aerial.txt"),
    ),
    attributes="qut_attribute_v8.mat",
    published=PublishedSizes(train_ids=807, images=100_502, ids=1_615),
)
