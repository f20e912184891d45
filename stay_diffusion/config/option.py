"""An option: a field of a frozen dataclass that is a flag and a line of JSON."""

from dataclasses import field


def option(
    default,
    help: str,
    choices: tuple = (),
    least: float | None = None,
    most: float | None = None,
    compat: bool = False,
):
    """Return a field that is a flag; values below `least` or above `most` are refused wherever they come from.

    `compat` is an option that exists for the tradition's commands alone; --help lists it last.
    """
    metadata = {"help": help, "choices": choices, "least": least, "most": most, "compat": compat}
    return field(default=default, metadata=metadata)


def numbers(flag: str, text: str, kind) -> list:
    try:
        numbers = [kind(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise ValueError(f"--{flag} {text}: expected numbers separated by commas") from None
    if any(not 0 <= n < float("inf") or (kind is int and n == 0) for n in numbers):
        raise ValueError(f"--{flag} {text}: expected positive numbers")
    return numbers
