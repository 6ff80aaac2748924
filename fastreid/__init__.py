"""A research framework for aerial-ground person re-identification, built around SD-ReID."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastreid.deploy.reid_model import ReIDModel

__version__ = "0.1.0"
__all__ = ["ReIDModel", "__version__"]


def __getattr__(name: str) -> Any:
    """``fastreid.ReIDModel`` brings torch and the models: it is imported when first asked for (PEP 562)."""
    if name == "ReIDModel":
        from fastreid.deploy.reid_model import ReIDModel

        return ReIDModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
