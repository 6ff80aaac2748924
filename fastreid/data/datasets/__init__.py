"""The benchmarks. Each file describes one; ``DATASET_REGISTRY`` knows all their protocols by name."""

from fastreid.data.datasets.ag_reid_v1 import AG_REID_V1
from fastreid.data.datasets.ag_reid_v2 import AG_REID_V2
from fastreid.data.datasets.base import Benchmark, NameFormat, Protocol, ReIDDataset
from fastreid.data.datasets.cargo import CARGO
from fastreid.data.datasets.csv_dataset import CSVDataset, open_dataset
from fastreid.data.datasets.g2aps_reid import G2APS_REID
from fastreid.data.datasets.lagper import LAGPER
from fastreid.data.datasets.registry import DATASET_REGISTRY
from fastreid.data.datasets.statistics import describe
from fastreid.structures import Sample

BENCHMARKS = (CARGO, AG_REID_V1, AG_REID_V2, LAGPER, G2APS_REID)

for _benchmark in BENCHMARKS:
    _benchmark.register()
