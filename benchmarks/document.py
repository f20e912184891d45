"""Measured text in a document that people write: between two marks, made anew by the command that measures it."""

from pathlib import Path

from stay_diffusion.run.checkpoint import write_text


def replace_section(file: Path, name: str, text: str) -> None:
    """Puts `text` between `<!-- NAME -->` and `<!-- /NAME -->`; ValueError where the file has not both once."""
    before, after = around_section(file, name)
    marked = f"<!-- {name} -->\n\n{text.strip()}\n\n<!-- /{name} -->"
    write_text(file, f"{before}{marked}{after}")


def around_section(file: Path, name: str) -> tuple[str, str]:
    """What stands before and after the marks; ValueError where the file has not both once."""
    if not file.is_file():
        raise ValueError(f"--doc {file}: no such file")
    document, first, last = file.read_text(encoding="utf-8"), f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if document.count(first) != 1 or document.count(last) != 1 or document.index(first) > document.index(last):
        raise ValueError(f"{file}: needs a line {first.strip()} and after it a line {last}")
    before, rest = document.split(first)
    return before, rest.split(last)[1]
