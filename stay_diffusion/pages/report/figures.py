"""The pictures of a report's page: crops of a class, pairs of samples and training objects, whole pictures."""

import re
from collections.abc import Sequence

from ..markup import count, outline, placed, text
from .gallery import Gallery
from .pictures import Embedded
from .results import Result, Results
from .sheets import MEDIAN, UNRANKED, WORST, Sheet, Shown

TOLD = {"best": "Best", MEDIAN: "Median", WORST: "Worst", UNRANKED: "Examples"}


def sheet(sheet: Sheet, results: Results, pictures: Gallery) -> str:
    """A class: its best, median and worst boxes."""
    label = results.classes.index(sheet.label) + 1
    groups = "".join(
        f'<div class="group {name}"><h4>{TOLD[name]}</h4><div class="crops">'
        + "".join(_crop(shown, label, pictures) for shown in group)
        + "</div></div>"
        for name, group in sheet.groups.items()
    )
    return f"""<article class="sheet c{label}" id="class-{label}">
<header><h3><bdi>{text(sheet.label)}</bdi></h3><p>{_about(sheet)}</p></header>
<div class="groups">{groups}</div>
</article>"""


def pair(shown: Shown, results: Results, pictures: Gallery) -> str:
    """A sample's box beside the training object that it is most like."""
    result, nearest = shown
    nearest, asked = result.nearest, shown.asked
    label = results.classes.index(asked.label) + 1
    copied = results.threshold is not None and nearest.similarity >= results.threshold
    sample = _frame(pictures.crops[result.index, shown.place], f"sample {result.stem}, {asked.label}", label)
    original = pictures.originals[result.index]
    if original is None:
        beside = '<div class="frame gone"><p>not readable any more</p></div>'
    else:
        there = results.classes.index(nearest.label) + 1 if nearest.label in results.classes else 0
        beside = _frame(original, f"training picture {nearest.file.name}, {nearest.label}", there)
    verdict = '<em class="bad">copy</em>' if copied else ""
    return f"""<article class="pair{" copied" * copied}">
<figure><a href="#picture-{result.index}">{sample}</a><figcaption><bdi>{_stem(result)}</bdi>, \
<bdi>{text(asked.label)}</bdi></figcaption></figure>
<figure>{beside}<figcaption><bdi>{text(nearest.file.name)}</bdi>, <bdi>{text(nearest.label)}</bdi></figcaption></figure>
<p>similarity <strong>{nearest.similarity:.3f}</strong> {verdict}</p>
</article>"""


def thumbnail(result: Result, pictures: Gallery) -> str:
    frame = _frame(pictures.thumbnails[result.index], f"good part {result.stem}")
    product = f"product <bdi>{text(result.product)}</bdi>" if result.product is not None else ""
    return f"<figure>{frame}<figcaption><bdi>{_stem(result)}</bdi><br>{product}</figcaption></figure>"


def whole(result: Result, results: Results, pictures: Gallery, back: str) -> str:
    """A whole picture with all its boxes; over the page where its link was followed, else in its place at the end."""
    embedded = pictures.wholes[result.index]
    boxes = "".join(
        outline(asked.box, results.classes.index(asked.label) + 1, asked.label, kinds)
        for kinds, found in ((" there", result.there), ("", result.boxes))
        for asked in found
    )
    words = [
        f"{embedded.width} × {embedded.height} px",
        f"number {result.index}",
        f"product {text(result.product)}" if result.product is not None else "",
        f"score {result.score:.2f}" if result.score is not None else "",
        f"drawn anew {count(result.anew, 'time')}" if result.anew else "",
    ]
    frame = _frame(embedded, f"{result.stem} with {count(len(result.boxes), 'box', 'boxes')}", more=boxes)
    ratio = f"--ratio: {embedded.width / embedded.height:.4g}"
    return f"""<figure class="whole" id="picture-{result.index}" style="{ratio}">
<a class="close" href="#{back}" aria-label="back to where this picture was opened">× close</a>
{frame}<figcaption><strong><bdi>{_stem(result)}</bdi></strong> <span>{" · ".join(filter(None, words))}</span>
</figcaption></figure>"""


def _stem(result: Result) -> str:
    """A name that may break after its lines and points."""
    return re.sub(r"([_.-])", r"\1<wbr>", text(result.stem))


def name_of(shown: Shown) -> str:
    """By which a crop is found on the page."""
    return f"crop-{shown.result.index}-{shown.place}"


def _about(sheet: Sheet) -> str:
    pictures = len({shown.result.index for shown in sheet.boxes})
    return f"{count(len(sheet.boxes), 'box', 'boxes')} in {count(pictures, 'picture')}"


def _crop(shown: Shown, label: int, pictures: Gallery) -> str:
    result, asked = shown.result, shown.asked
    score = f"score {asked.score:.2f}" if asked.score is not None else "not scored"
    frame = _frame(pictures.crops[result.index, shown.place], f"{asked.label} in {result.stem}, {score}", label)
    told = f"<strong>{asked.score:.2f}</strong> " if asked.score is not None else ""
    other = asked.predicted if asked.predicted not in (None, asked.label) else None
    taken = f'<em class="bad">taken for <bdi>{text(other)}</bdi></em>' if other is not None else ""
    return f"""<figure class="crop" id="{name_of(shown)}"><a href="#picture-{result.index}">{frame}</a>
<figcaption>{told}<bdi>{_stem(result)}</bdi> {taken}</figcaption></figure>"""


def _frame(embedded: Embedded, told: str, label: int = 0, more: str = "") -> str:
    box = f'<b class="box c{label}" style="{placed(embedded.box)}"></b>' if label else ""
    shape = f"aspect-ratio: {embedded.width} / {embedded.height}"
    image = f'<img src="{embedded.uri}" alt="{text(told)}">'
    return f'<div class="frame{" sharp" * embedded.sharp}" style="{shape}">{image}{box}{more}</div>'


def of_all(pictures: Sequence[str], kind: str) -> str:
    return f'<div class="{kind}">{"".join(pictures)}</div>'
