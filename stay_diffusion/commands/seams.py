"""Measure visible edges around objects inserted into whole images. Needs nothing but the results folder.

    python evaluations/seams.py RESULTS

RESULTS is a folder made by image_sample.py --insert_into or --edit. Counted are pixels that differ from the source
where nothing may have changed: there must be none. Along the edges of what may change, the step from each pixel inside
to its neighbour outside is held against the same step in the source: 1 is a passage that the source itself could have,
more is a seam. Reported in shares of the range of grey levels, with the drawn pixels' own steps just inside the edges.
"""

import json
from pathlib import Path

from ..system.command import argument_parser


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("results", type=Path, help="folder made by image_sample.py --insert_into or --edit")
    folder = parser.parse_args().results

    # Imported only now, so that --help and mistyped flags answer at once.
    from ..data.manifest import read_run
    from ..evaluation.seams import INSIDE, cases_of, measure
    from ..run.checkpoint import write_text

    by_index = read_run(folder)
    entries = [entry for _, entry in sorted(by_index.items())]
    if not entries or not entries[0].source_image:
        raise ValueError(f"{folder}: no pictures made by image_sample.py --insert_into or --edit in it")
    found = measure(cases_of(folder, entries))

    box_margin = entries[0].settings["box_margin"]
    ratio = "none" if found.ratio is None else f"{found.ratio:.2f}"
    print(f"insertion: {found.objects} objects in {found.pictures} pictures, box_margin {box_margin:g}")
    print(f"  pixels changed where none may be  {found.changed_outside}")
    print(f"  step across the edges             {found.step:.4f} of the range")
    print(f"  the same in the sources           {found.source_step:.4f}, ratio {ratio}")
    print(f"  the drawn pixels' own, {INSIDE} inside    {found.drawn_step:.4f}")
    figures = {**vars(found), "ratio": found.ratio, "box_margin": box_margin}
    write_text(folder / "seams.json", json.dumps(figures, indent=2) + "\n")
    return 0 if not found.changed_outside else 1
