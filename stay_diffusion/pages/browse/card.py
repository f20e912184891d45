"""The HTML of one looked-at picture: its original and its draws, boxes laid over them."""

from collections.abc import Sequence

from ...data.annotations import Vocabulary
from ..markup import Corners, outline, placed, text
from .browse import LOST, Drawn, Entry, View

FILES = "index_files"


def file_of(index: int, ending: str) -> str:
    """A picture beside the page: named by numbers alone, so that addresses need no escaping."""
    return f"{FILES}/{index:06d}{ending}"


def card(entry: Entry, names: Vocabulary, is_map: bool) -> str:
    product = f"product {text(names.products[entry.product - 1])}" if entry.product else ""
    about = " · ".join(filter(None, [f"{entry.width} × {entry.height} px", product, f"number {entry.index}"]))
    states = {"lost" for view in entry.views for drawn in view.objects if drawn.lost}
    states |= {"tiny" for view in entry.views for drawn in view.objects if drawn.is_tiny}
    states |= {"empty" for view in entry.views if not view.labels}
    labels = sorted(set().union(*(view.labels for view in entry.views)))
    figures = "\n".join(_view(entry, view, names.classes, is_map, len(entry.views) > 1) for view in entry.views)
    return f"""<article data-name="{text(entry.name.lower())}" data-labels="{" ".join(map(str, labels))}" \
data-product="{entry.product}" data-state="{" ".join(sorted(states))}">
<header><h2><bdi>{text(entry.name)}</bdi></h2><p>{about}</p></header>
<div class="figures">
{_original(entry, names.classes)}
{figures}
</div>
</article>"""


def _original(entry: Entry, classes: Sequence[str]) -> str:
    width, height = entry.width, entry.height
    boxes = ""
    for i, drawn in enumerate(entry.views[0].objects):
        fates = {view.objects[i].lost for view in entry.views}
        place = _share(drawn.box, width, height)
        boxes += _box(drawn, place, drawn.box, classes, lost="" not in fates)
    for view in entry.views:
        if not _is_whole(entry, view):
            number = f"<i>{view.epoch + 1}</i>" if len(entry.views) > 1 else ""
            boxes += f'<b class="window" style="{placed(_share(view.window, width, height))}">{number}</b>'
    image = _image(file_of(entry.index, ".jpg"), "original")
    return f"""<figure class="original"><div class="frame" style="aspect-ratio: {width} / {height}">{image}{boxes}</div>
<figcaption>original</figcaption></figure>"""


def _view(entry: Entry, view: View, classes: Sequence[str], is_map: bool, numbered: bool) -> str:
    caption = " · ".join(filter(None, [f"draw {view.epoch + 1}" * numbered or "seen", _cut(entry, view)]))
    boxes = "".join(_box(drawn, drawn.seen, drawn.seen, classes) for drawn in view.shown)
    items = "".join(_item(drawn, classes) for drawn in sorted(view.objects, key=lambda drawn: drawn.lost))
    image = _image(file_of(entry.index, f"_{view.epoch}.png"), "seen")
    figure = f"""<figure class="seen" data-epoch="{view.epoch}"><div class="frame">{image}{boxes}</div>
<figcaption>{caption}</figcaption>{f"<ul>{items}</ul>" if items else ""}</figure>"""
    if not is_map:
        return figure
    shares = sorted((view.shares or {}).items(), key=lambda pair: -pair[1])
    items = "".join(
        f'<li class="c{label}"><bdi>{text(classes[label - 1])}</bdi> <span>{100 * share:.1f} %</span></li>'
        for label, share in shares
    )
    return f"""{figure}
<figure class="map"><div class="frame">{_image(file_of(entry.index, f"_{view.epoch}_map.png"), "label map")}</div>
<figcaption>map</figcaption><ul>{items}</ul></figure>"""


def _is_whole(entry: Entry, view: View) -> bool:
    return tuple(view.window) == (0, 0, entry.width, entry.height)


def _cut(entry: Entry, view: View) -> str:
    """Which part of the original is seen, and how."""
    x0, y0, x1, y1 = view.window
    part = "whole" if _is_whole(entry, view) else f"{x1 - x0:.0f} × {y1 - y0:.0f} at {x0:.0f}, {y0:.0f}"
    return part + " · mirrored" * view.mirrored


def _item(drawn: Drawn, classes: Sequence[str]) -> str:
    name, (w, h) = f"<bdi>{text(classes[drawn.label - 1])}</bdi>", drawn.sides
    if drawn.lost:
        left = f", {100 * drawn.share:.0f} % left" if drawn.lost == "crop" and drawn.share > 0 else ""
        return f'<li class="c{drawn.label} lost" data-lost="{drawn.lost}">{name} <em>{LOST[drawn.lost]}{left}</em></li>'
    tiny = " <em>under 2 pixels</em>" * drawn.is_tiny
    return f'<li class="c{drawn.label}">{name} <span>{w:.3g} × {h:.3g} px</span>{tiny}</li>'


def _box(drawn: Drawn, place: Corners, numbers: Corners, classes: Sequence[str], lost: bool = False) -> str:
    """An outline at `place`, in [0, 1] of the frame, with its numbers to be read back."""
    exact = " ".join(f"{number:.9g}" for number in numbers)
    data = f' data-label="{drawn.label}" data-box="{exact}"'
    return outline(place, drawn.label, classes[drawn.label - 1], " lost" * lost, data)


def _share(corners: Corners, width: int, height: int) -> Corners:
    x0, y0, x1, y1 = corners
    return x0 / width, y0 / height, x1 / width, y1 / height


def _image(file: str, what: str) -> str:
    return f'<img src="{file}" alt="{what}" loading="lazy">'
