"""Evaluation: features of the test images, ranks, metrics, and the files that record them."""

from fastreid.evaluation.distance import METRIC_REGISTRY, Metric, compute_distance
from fastreid.evaluation.evaluator import ReidEvaluator, evaluate_protocols
from fastreid.evaluation.extraction import extract_features
from fastreid.evaluation.features import evaluate_features
from fastreid.evaluation.query_expansion import expand_queries
from fastreid.evaluation.rank import evaluate_rank
from fastreid.evaluation.rerank import jaccard_distance, rerank_distance
from fastreid.evaluation.roc import tpr_at_fpr
