"""SeCap: prompts that the person's own feature re-calibrates find a second, local feature among the patches.

Wang et al., "SeCap: Self-Calibrating and Adaptive Prompts for Cross-view Person Re-Identification in
Aerial-Ground Networks", CVPR 2025, arXiv 2503.06965.
"""

from fastreid.modeling.meta_arch.secap.method import SeCap
