"""The types that pass between the rooms of the house."""

from fastreid.structures.data import (
    Batch,
    DataNames,
    EncoderOutput,
    Metrics,
    Results,
    RetrievalTask,
    Sample,
    SampleNames,
)
from fastreid.structures.outputs import ExportPart, Finding, Level, Table, Tensors
