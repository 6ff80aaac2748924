"""ViSA: experts of each view make semantic queries, and a graph joins each with the regions that it means.

Zhang et al., "View-Aware Semantic Alignment for Aerial-Ground Person Re-Identification", CVPR 2026,
arXiv 2605.18192.
"""

from fastreid.modeling.meta_arch.visa.encoder import ViewTokensTransformer
from fastreid.modeling.meta_arch.visa.method import ViSA
