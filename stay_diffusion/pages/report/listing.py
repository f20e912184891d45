"""Names with their values, as a page lists them."""

from ..markup import text

LONG = 24  # letters of a value that has a line of its own


def listed(rows: dict) -> str:
    """Names and values, long ones first, over the whole width."""
    ordered = sorted(rows.items(), key=lambda row: len(str(row[1])) <= LONG)
    items = "".join(
        f"<div{' class=long' * (len(str(value)) > LONG)}><dt>{text(name)}</dt><dd><bdi>{text(value)}</bdi></dd></div>"
        for name, value in ordered
    )
    return f'<dl class="rows">{items}</dl>'


def flattened(values: dict, before: str = "") -> dict:
    """The single values of a nested dict, by their names one after the other; lists are left out."""
    found = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flattened(value, f"{before}{name} ")
        elif not isinstance(value, list):
            found[f"{before}{name}"] = f"{value:.4g}" if isinstance(value, float) else value
    return found
