"""Rules for a method's parameters, by their names."""

from typing import NamedTuple


class ParameterRules(NamedTuple):
    """Full names, or prefixes of them, in the method's state dict."""

    undecayed: frozenset[str] = frozenset()
    """Full names of learned inputs rather than weights: no weight decay."""
    heads: tuple[str, ...] = ()
    """Prefixes of what counts as a head: SOLVER.HEADS_LR_FACTOR holds."""
    training_only: tuple[str, ...] = ()
    """Prefixes of what training alone reads, such as classifiers: an evaluation goes without, and weights for
    another number of identities are left out."""
    may_start_without: tuple[str, ...] = ("",)
    """Prefixes of what the checkpoint that a training starts from may lack; "": anything."""
