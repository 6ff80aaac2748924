"""Measured figures with their targets, as JSON and as a Markdown table."""

from typing import Any, NamedTuple


class Figure(NamedTuple):
    """A number that was measured."""

    part: str
    what: str
    value: float
    unit: str
    at_least: float | None = None
    """The target; None: it has none."""

    @property
    def is_reached(self) -> bool | None:
        return None if self.at_least is None else self.value >= self.at_least

    def to_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "is_reached": self.is_reached}


def _shown(value: float) -> str:
    """Write a number with four digits, more of what is nearly 1, all before the point."""
    if 0.99 < abs(value) < 1:
        return f"{value:.6f}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:,.4g}"


def markdown(title: str, figures: list[Figure], left_out: dict[str, str]) -> str:
    """Return a table of the figures, and a line for each part that was left out or ended early, with why."""
    words = {None: "", True: "reached", False: "**missed**"}
    lines = [f"# {title}", "", "| part | what | measured | target | |", "|---|---|---|---|---|"]
    for figure in figures:
        target = "" if figure.at_least is None else f"at least {figure.at_least:g}"
        measured = _shown(figure.value)
        cells = (
            figure.part,
            figure.what,
            f"{measured} {figure.unit}".strip(),
            target,
            words[figure.is_reached],
        )
        lines.append(f"| {' | '.join(cells)} |")
    begun = {figure.part for figure in figures}
    lines.append("")
    for part, reason in left_out.items():
        lines.append(f"- {'rest of ' if part in begun else ''}{part} left out: {reason}")
    return "\n".join(lines).rstrip() + "\n"
