"""A report as one HTML page: what it opens with, its sections, and what is not in it."""

from collections.abc import Sequence
from pathlib import Path

from ...config import flags
from ..markup import colour_rules, count, text
from . import figures, measures
from .class_table import class_table
from .commands import ADHERENCE, QUALITY, REPORT, command, folded, sampling_command
from .gallery import Gallery
from .layout_charts import layout_charts
from .listing import listed
from .results import Result, Results
from .sheets import UNRANKED, Sheet, Shown
from .style import STYLE

# The browser itself holds the page to this: no script, and nothing but what is in the file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STEMS = 500  # listed at most


def page_of(
    results: Results,
    sheets: Sequence[Sheet],
    pairs: Sequence[Shown],
    without: Sequence[Result],
    pictures: Gallery,
) -> str:
    """The whole page; `without` are the pictures without boxes that it shows."""
    sections = {"Contact sheets": "", "Classes": "", "Layouts": "", "Scores": "", "Box adherence": ""}
    if sheets:
        sections["Contact sheets"] = _contact_sheets(results, sheets, pictures)
        sections["Classes"] = class_table(results, sheets)
        sections["Layouts"] = layout_charts(results)
    if results.scored and sheets:
        sections["Scores"] = measures.scores(results)
    if results.adherence:
        sections["Box adherence"] = measures.adherence(results.adherence)
    sections["Nearest training pictures"] = _pairs(results, pairs, pictures)
    sections["Good parts" if sheets else "Pictures"] = _good_parts(results, without, pictures)
    sections["Settings"] = _settings(results)
    sections["Commands"] = _commands(results)
    sections["Whole pictures"] = _wholes(results, sheets, pairs, pictures)
    sections = {name: inside for name, inside in sections.items() if inside}

    title, labels = results.folder.resolve().name, range(1, len(results.classes) + 1)
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name in sections)
    body = "\n".join(
        f'<section id="{_anchor(name)}"><h2>{name}</h2>\n{inside}\n</section>' for name, inside in sections.items()
    )
    tiles = "".join(f"<li><strong>{figure}</strong> {what}</li>" for figure, what in measures.tiles(results))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="generator" content="stay_diffusion report">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}: report</title>
<style>{STYLE}{colour_rules(labels, results.classes)}</style>
</head>
<body>
<header class="top">
<h1><bdi>{text(title)}</bdi></h1>
<p class="lead">{_lead(results)}</p>
<ul class="tiles">{tiles}</ul>
{_missing(results)}
<nav>{links}</nav>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _lead(results: Results) -> str:
    weights = Path(results.settings.get("checkpoint", "weights that are not named"))
    size = results.settings.get("image_size")
    of_size = f", by a model of {size} × {size} px" if size else ""
    name = f"<code>{text(weights.parent.name)}/{text(weights.name)}</code>"
    return f"Defect pictures with labels, sampled from {name}{of_size}."


def _missing(results: Results) -> str:
    """A line for each part that is not there: what brings it."""
    folder, lines = results.folder.resolve(), []
    if not results.scored:
        lines.append(("scores and near-copies", command(QUALITY, folder)))
    if not results.adherence:
        lines.append(("box adherence", command(ADHERENCE, folder)))
    items = "".join(f"<li>Not here: {what}. Added by <code>{text(line)}</code></li>" for what, line in lines)
    if results.training is None:
        run = Path(results.settings.get("checkpoint", "none")).parent
        items += f"<li>Not here: the training split's layouts. No layout_statistics.json in {text(run)}</li>"
    return f'<ul class="missing">{items}</ul>' if items else ""


def _contact_sheets(results: Results, sheets: Sequence[Sheet], pictures: Gallery) -> str:
    ranked = any(UNRANKED not in sheet.groups for sheet in sheets)
    told = "Crops around the boxes, with their surroundings. "
    told += "Ranked by each box's score" if ranked else "Not ranked, as nothing was scored: evenly spread over the set"
    hide = '<label><input type="checkbox" id="boxes" checked> boxes</label>'
    articles = "\n".join(figures.sheet(sheet, results, pictures) for sheet in sheets)
    return f'<p class="told">{told}. A click opens the whole picture. {hide}</p>\n{articles}'


def _pairs(results: Results, pairs: Sequence[Shown], pictures: Gallery) -> str:
    if not pairs:
        return ""
    limit = "" if results.threshold is None else f" From {results.threshold:.3f} on, a picture counts as a copy."
    told = f"The samples most like an object of the training split, beside it.{limit}"
    return f'<p class="told">{told}</p>' + figures.of_all(
        [figures.pair(shown, results, pictures) for shown in pairs], "pairs"
    )


def _good_parts(results: Results, without: Sequence[Result], pictures: Gallery) -> str:
    if not without:
        return ""
    number, thumbnails = len(results.good_parts), [figures.thumbnail(result, pictures) for result in without]
    stems = "".join(f"<li><bdi>{text(result.stem)}</bdi></li>" for result in results.good_parts[:STEMS])
    here = f", {len(without)} of them here" if len(without) < number else ""
    more = f"<li>and {number - STEMS:,} more</li>" if number > STEMS else ""
    return (
        f'<p class="told">{count(number, "picture")} without boxes{here}.</p>'
        + figures.of_all(thumbnails, "thumbnails")
        + f'<details><summary>all {number:,}, by name</summary><ul class="stems">{stems}{more}</ul></details>'
    )


def _settings(results: Results) -> str:
    rows = {"folder": str(results.folder.resolve()), "layouts from": _sources(results)}
    products = ", ".join(f"{name} ({number:,})" for name, number in results.products.most_common())
    rows |= {"products": products} if products else {}
    rows |= {name: flags.text(value) for name, value in results.settings.items()}
    anew = sum(result.anew for result in results.pictures)
    rows |= {"drawn anew": count(anew, "time")} if anew else {}
    return listed(rows)


def _sources(results: Results) -> str:
    found = {result.source for result in results.pictures}
    if len(found) == 1:
        return found.pop()
    folders = sorted({str(Path(source).parent) for source in found})
    return f"{count(len(found), 'picture')} of {', '.join(folders[:3])}{' and others' * (len(folders) > 3)}"


def _commands(results: Results) -> str:
    folder = results.folder.resolve()
    lines = {
        "The same pictures again, into a folder beside this one": sampling_command(results),
        "Scores and near-copies": command(QUALITY, folder),
        "Box adherence": command(ADHERENCE, folder),
        "This page": command(REPORT, folder),
    }
    items = "".join(f"<dt>{what}</dt><dd><pre>{text(folded(line))}</pre></dd>" for what, line in lines.items())
    return f'<dl class="commands">{items}</dl>'


def _wholes(results: Results, sheets: Sequence[Sheet], pairs: Sequence[Shown], pictures: Gallery) -> str:
    """Each once, though several crops may show it; closing one leads back to the first of these."""
    back = {shown.result.index: "Nearest-training-pictures" for shown in pairs}
    crops = [shown for sheet in sheets for group in sheet.groups.values() for shown in group]
    back |= {shown.result.index: figures.name_of(shown) for shown in reversed(crops)}
    shown = [result for result in results.pictures if result.index in pictures.wholes]
    wholes = [figures.whole(result, results, pictures, back[result.index]) for result in shown]
    return figures.of_all(wholes, "wholes") if wholes else ""


def _anchor(name: str) -> str:
    return name.replace(" ", "-")
