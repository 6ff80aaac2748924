"""The types that pass between the rooms of the house."""

from fastreid.structures.batch import Batch, EncoderOutput
from fastreid.structures.names import DataNames
from fastreid.structures.parts import ExportPart, Tensors
from fastreid.structures.report import Finding, Table
from fastreid.structures.retrieval import Metrics, Results, RetrievalTask
from fastreid.structures.sample import Sample
