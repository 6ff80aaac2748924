"""The names that people give to what a model counts from 0."""

from typing import Any, NamedTuple


class DataNames(NamedTuple):
    """The training data's own names; all empty where they are not known."""

    identities: tuple[str, ...] = ()
    """By label: the person id, after the benchmark's name where several are joined."""
    cameras: dict[int, str] = {}
    """By camera id."""
    views: tuple[str, ...] = ()
    """By view id."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as checkpoints hold them."""
        return {"identities": list(self.identities), "cameras": dict(self.cameras), "views": list(self.views)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DataNames":
        """Return the names that `to_dict` gave; what is missing stays empty."""
        return cls(
            tuple(values.get("identities", ())),
            dict(values.get("cameras", {})),
            tuple(values.get("views", ())),
        )
