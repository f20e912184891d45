"""How long a command takes to answer: --help, and the package alone.

    python benchmarks/command_line.py [--rounds 7]

Whole processes, in turn, after one of each that fills the caches. The import is that of a process that imports the
package less that of one that does nothing. These two targets are seconds, not ratios: they are what a person waits.
"""

import subprocess
import sys
from pathlib import Path

from measuring import AT_MOST, Row, in_turn, ratio, table

from stay_diffusion.system.command import argument_parser, run_command

ROOT = Path(__file__).resolve().parents[1]


def rows(rounds: int = 7) -> list[Row]:
    """Row 7 of the targets."""

    def process(*words: str):
        return lambda: subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)

    routes = {
        "help": process("scripts/image_train.py", "--help"),
        "import": process("-c", "import stay_diffusion"),
        "nothing": process("-c", "pass"),
    }
    seconds = in_turn(routes, rounds)
    imports = [one - other for one, other in zip(seconds["import"], seconds["nothing"], strict=True)]
    found = []
    for what, times, target in (
        ("image_train.py --help, seconds", seconds["help"], 1.5),
        ("import stay_diffusion, seconds", imports, 0.1),
    ):
        protocol = f"whole processes, warm, {rounds} rounds"
        found.append(Row("7", what, AT_MOST, target, *ratio(times, [1.0] * len(times)), protocol))
    return found


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    print(table(rows(parser.parse_args().rounds)))
    return 0


if __name__ == "__main__":
    run_command(main)
