"""What a data set has that cannot be used as it is."""

from dataclasses import dataclass

LEFT_OUT = "left out"  # the action for what is no fault of the data, such as pictures that nobody has labelled


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a data set that cannot be used as it is: where, what, the particulars, what is done about it."""

    file: str
    kind: str
    detail: str
    action: str  # "image skipped", "box skipped" or LEFT_OUT
