"""Write report.html: what a results folder holds as one page to look at and to hand on, which needs no network.

    python evaluations/report.py RESULTS

RESULTS is a folder made by image_sample.py. Of each class the page shows the best, the middle and the worst boxes by
their scores, and how classes, sizes and places of the set compare with those of the training split; box adherence and
the likeliest copies of training pictures where they were measured; settings, and the commands that repeat all this.
"""

from pathlib import Path

from ..system.command import argument_parser


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("results", type=Path, help="folder made by image_sample.py")
    parser.add_argument("--out", type=Path, help="file to write; by default report.html in the folder")
    parser.add_argument("--per_group", type=int, default=6, help="crops of a class in each group, at most")
    arguments = parser.parse_args()
    if arguments.per_group < 1:
        raise ValueError(f"--per_group {arguments.per_group}: must be 1 or more")

    from ..pages.report import write_report

    out = write_report(arguments.results, arguments.out, arguments.per_group)
    print(f"written: {out.resolve()} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0
