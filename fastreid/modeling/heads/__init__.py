"""Heads: from an encoder's features to class logits in training, to the retrieval feature in evaluation."""

from fastreid.modeling.heads.build import REID_HEADS_REGISTRY, build_head
from fastreid.modeling.heads.cls_layers import (
    CLS_LAYER_REGISTRY,
    ArcSoftmax,
    CircleSoftmax,
    CosSoftmax,
    Linear,
)
from fastreid.modeling.heads.embedding_head import EmbeddingHead, HeadOutput
