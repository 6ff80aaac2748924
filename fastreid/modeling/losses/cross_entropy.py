"""Cross-entropy with fixed or adaptive label smoothing."""

import torch
import torch.nn.functional as F


def cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, epsilon: float = 0.0, alpha: float = 0.2
) -> torch.Tensor:
    """Mean cross-entropy in float32.

    With smoothing e the target distribution is (1 - e) on the target plus e / C on each of the C classes
    (Szegedy et al., CVPR 2016, sec. 7). A negative `epsilon` makes it adaptive: sample i gets
    e_i = alpha * p_i, p_i being the probability that the model now gives its target (no gradient flows
    through p_i). So an untrained model sees hard labels, and the more certain it gets the more is smoothed.

    Args:
        logits: (B, C).
        targets: int64 (B,).
        epsilon: the fixed smoothing in [0, 1), or negative for adaptive.
        alpha: the adaptive smoothing of a sample that the model is certain of.
    """
    log_probs = F.log_softmax(logits.float(), dim=1)
    log_target = log_probs.gather(1, targets[:, None]).squeeze(1)
    smoothing = alpha * log_target.detach().exp() if epsilon < 0 else epsilon
    return -((1 - smoothing) * log_target + smoothing * log_probs.mean(dim=1)).mean()
