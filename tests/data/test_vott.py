import hashlib
import json
import logging
import math
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord
from stay_diffusion.data.formats import vott
from stay_diffusion.data.images import image_size

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def region(*tags, box=(1, 2, 5, 8), kind="RECTANGLE", points=None):
    x0, y0, x1, y1 = box
    return {
        "id": "r",
        "type": kind,
        "tags": list(tags),
        "boundingBox": {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0},
        "points": points or [{"x": x, "y": y} for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))],
    }


def asset(name, *, folder="/home/someone/pictures", size=(20, 10), state=2, kind=1):
    path = f"file:{quote(f'{folder}/{name}')}"
    size = {"width": size[0], "height": size[1]} if size else None
    return {"format": "png", "id": f"id-{path}", "name": name, "path": path, "size": size, "state": state, "type": kind}


def save_image(path, size=(20, 10), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path, **options)
    return path


def export(path, *assets, tags=("Spots", "Pits"), images=True):
    """A vott-json-export of (asset, regions) pairs, with the images beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {str(i): {"asset": a, "regions": regions, "version": "2.2.0"} for i, (a, regions) in enumerate(assets)}
    path.write_text(json.dumps({"name": "x", "tags": [{"name": t, "color": "#fff"} for t in tags], "assets": entries}))
    for a, _ in assets if images else ():
        save_image(path.parent / a["name"])
    return path


def project(folder, *assets, tags=("Spots", "Pits")):
    """A VoTT project folder of (asset, regions) pairs: asset files only where there are regions, images elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = {a["id"].replace("/", "_"): a | {"id": a["id"].replace("/", "_")} for a, _ in assets}
    tags = [{"name": t, "color": "#fff"} for t in tags]
    (folder / "parts.vott").write_text(json.dumps({"name": "parts", "tags": tags, "assets": listed}))
    for a, regions in assets:
        own = a["id"].replace("/", "_")
        if regions:
            metadata = {"asset": a | {"id": own}, "regions": regions, "version": "2.2.0"}
            (folder / f"{own}-asset.json").write_text(json.dumps(metadata))
    return folder


def read_boxes(tmp_path, *regions):
    export(tmp_path / "x-export.json", (asset("a.png"), list(regions)))
    [record], _ = vott.read(tmp_path)
    return record.boxes


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/deeppcb")
@pytest.mark.parametrize(("split", "images", "counts"), [
    ("train", 300, (400, 321, 429, 349, 310, 305)),
    ("val", 100, (126, 100, 132, 96, 97, 93)),
])  # fmt: skip
def test_deeppcb_has_the_counts_its_readme_states(split, images, counts):
    records, tags = vott.read(SHARED / "deeppcb" / split)
    assert tags == ["open", "short", "mousebite", "spur", "copper", "pin-hole"]
    assert len(records) == images and all(record.path.is_file() for record in records)
    assert Counter(b.label for r in records for b in r.boxes) == dict(zip(tags, counts, strict=True))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/magnetic_tile_mini")
@pytest.mark.parametrize(("split", "images", "empty", "counts"), [
    ("training", 102, 12, (18, 22, 23, 21, 19)),
    ("validation", 34, 4, (6, 10, 6, 7, 6)),
])  # fmt: skip
def test_magnetic_tiles_have_the_counts_their_readme_states(split, images, empty, counts):
    problems = []
    records, tags = vott.read(SHARED / "magnetic_tile_mini/images" / split, None, problems)
    assert len(records) == images and sum(not record.boxes for record in records) == empty and problems == []
    assert tags == ["Blowhole", "Break", "Crack", "Fray", "Uneven"]
    assert Counter(b.label for r in records for b in r.boxes) == dict(zip(tags, counts, strict=True))
    assert all((record.width, record.height) == image_size(record.path) for record in records)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/magnetic_tile_mini")
def test_magnetic_tiles_keep_their_sizes():
    records, _ = vott.read(SHARED / "magnetic_tile_mini/images/training")
    first = next(record for record in records if record.stem == "blowhole_exp1_num_265077")
    assert (first.width, first.height, first.boxes) == (265, 356, (Box("Blowhole", 244, 9, 254, 23),))


def test_what_is_written_is_read_back_exactly(tmp_path):
    boxes = (Box("Pits", 0.1, 0.2, 0.1 + 0.2, 1 / 3), Box("Spots", -300.3, 2, 0.1, 9.999999999999998))
    path = save_image(tmp_path / "a b#ü%20.png")
    records = [
        ImageRecord(path, 20, 10, boxes),
        ImageRecord(save_image(tmp_path / "one/same.png"), 20, 10),
        ImageRecord(save_image(tmp_path / "two/same.png"), 20, 10, boxes[:1]),
    ]
    vott.write(tmp_path / "x-export.json", records, ["Spots", "Pits"], name="x")
    assert vott.read(tmp_path) == (records, ["Spots", "Pits"])


def test_an_export_can_lie_beside_the_folder_of_its_images(tmp_path):
    save_image(tmp_path / "labels/same.png")
    records = [ImageRecord(save_image(tmp_path / "images/same.png"), 20, 10)]
    vott.write(tmp_path / "labels/x-export.json", records, [], name="x")
    assert vott.read(tmp_path)[0] == records


def test_a_product_is_written_as_a_region_over_the_whole_image(tmp_path):
    path = save_image(tmp_path / "a.png")
    vott.write(tmp_path / "x-export.json", [ImageRecord(path, 20, 10, (), "A")], ["Spots"], name="x")
    records, tags = vott.read(tmp_path)
    assert records[0].boxes == (Box("A", 0, 0, 20, 10),) and tags == ["Spots", "A"]


def test_an_export_has_votts_shape_and_the_same_bytes_in_any_folder(tmp_path):
    for name in ("one", "two"):
        record = ImageRecord(tmp_path / name / "a.png", 20, 10, (Box("Spots", 1, 2.5, 5, 8),))
        vott.write(tmp_path / name / "x-export.json", [record], ["Spots"], name="my parts")
    text = (tmp_path / "one/x-export.json").read_text()
    assert text == (tmp_path / "two/x-export.json").read_text()
    [(asset_id, metadata)] = json.loads(text)["assets"].items()
    assert asset_id == metadata["asset"]["id"] == hashlib.md5(b"a.png").hexdigest()
    assert (metadata["asset"]["state"], metadata["asset"]["type"]) == (2, 1)
    [drawn] = metadata["regions"]
    assert drawn["boundingBox"] == {"height": 5.5, "width": 4, "left": 1, "top": 2.5}
    assert [(p["x"], p["y"]) for p in drawn["points"]] == [(1, 2.5), (5, 2.5), (5, 8), (1, 8)]
    assert text.startswith('{\n    "name": "my parts"') and '"left": 1,' in text


def test_writing_leaves_no_temporary_file_and_refuses_an_image_given_twice(tmp_path):
    record = ImageRecord(tmp_path / "a.png", 20, 10)
    vott.write(tmp_path / "x-export.json", [record], [], name="x")
    assert [path.name for path in tmp_path.iterdir()] == ["x-export.json"]
    with pytest.raises(AnnotationError, match=r"a\.png is given twice"):
        vott.write(tmp_path / "x-export.json", [record, record], [], name="x")


def test_an_interrupted_write_leaves_the_last_export(tmp_path, monkeypatch):
    path, record = tmp_path / "x-export.json", ImageRecord(tmp_path / "a.png", 20, 10)
    vott.write(path, [record], [], name="first")
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(vott.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        vott.write(path, [record], [], name="second")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_one_region_with_two_tags_is_two_boxes(tmp_path):
    assert read_boxes(tmp_path, region("Spots", "Pits")) == (Box("Spots", 1, 2, 5, 8), Box("Pits", 1, 2, 5, 8))


def test_a_polygon_without_bounding_box_is_bounded_by_its_points(tmp_path):
    polygon = region("Spots", kind="POLYGON", points=[{"x": 3, "y": 1.5}, {"x": 9, "y": 4}, {"x": 2.25, "y": 6}])
    del polygon["boundingBox"]
    assert read_boxes(tmp_path, polygon) == (Box("Spots", 2.25, 1.5, 9, 6),)


def test_a_polygon_with_bounding_box_keeps_that_box(tmp_path):
    polygon = region("Spots", kind="POLYGON", points=[{"x": 3, "y": 3}, {"x": 4, "y": 4}])
    assert read_boxes(tmp_path, polygon) == (Box("Spots", 1, 2, 5, 8),)


def test_a_box_partly_outside_is_kept_as_drawn(tmp_path):
    assert read_boxes(tmp_path, region("Spots", box=(-3.5, 2, 25, 8))) == (Box("Spots", -3.5, 2, 25, 8),)


@pytest.mark.parametrize(("bad", "kind"), [
    (region(), "without a tag"),
    (region("Spots", box=(3, 3, 3, 3), kind="POINT"), "POINT regions without area"),
    (region("Spots", box=(3, 3, 9, 3), kind="POLYLINE"), "POLYLINE regions without area"),
    (region("Spots", box=(5, 5, 2, 8)), "without area"),
    (region("Spots", box=(20, 0, 25, 8)), "wholly outside"),
    (region("Spots", box=(math.nan, 0, 5, 8)), "without finite coordinates"),
    (region("Spots", box=(0, 0, math.inf, 8)), "without finite coordinates"),
])  # fmt: skip
def test_a_region_that_cannot_be_used_is_skipped_and_counted(tmp_path, caplog, bad, kind):
    assert read_boxes(tmp_path, bad, region("Pits"), bad) == (Box("Pits", 1, 2, 5, 8),)
    [message] = [record.getMessage() for record in caplog.records]
    assert kind in message and ": 2 times " in message and "a.png" in message


def test_images_nobody_looked_at_are_not_good_parts(tmp_path, caplog):
    assets = [
        (asset("new.png", state=0), []),
        (asset("good.png", state=1), []),
        (asset("old.png", state=0), [region("Pits")]),
    ]
    export(tmp_path / "x-export.json", *assets)
    records, _ = vott.read(tmp_path)
    assert [(record.stem, len(record.boxes)) for record in records] == [("good", 0), ("old", 1)]
    assert "nobody has looked at" in caplog.text and "new.png" in caplog.text


def test_videos_are_skipped_and_their_frames_are_read(tmp_path, caplog):
    assets = [(asset("film.mp4.png", kind=2), []), (asset("frame.png", kind=3), []), (asset("r.png", kind=4), [])]
    export(tmp_path / "x-export.json", *assets)
    records, _ = vott.read(tmp_path)
    assert [record.stem for record in records] == ["frame"]
    assert "2 times videos" in caplog.text


def test_a_missing_size_comes_from_the_upright_image(tmp_path):
    export(tmp_path / "x-export.json", (asset("a.jpg", size=None), []), images=False)
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    save_image(tmp_path / "a.jpg", size=(8, 4), exif=exif)
    [record], _ = vott.read(tmp_path)
    assert (record.width, record.height) == (4, 8)


def test_several_exports_below_a_folder_are_read_in_order_with_merged_tags(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    export(tmp_path / "b/two-export.json", (asset("b.png"), [region("Holes")]), tags=("Pits", "Holes"))
    export(tmp_path / "a/one-export.json", (asset("a.png"), [region("Spots")]))
    records, tags = vott.read(tmp_path)
    assert [record.stem for record in records] == ["a", "b"] and tags == ["Spots", "Pits", "Holes"]
    assert not caplog.records


def test_an_image_in_two_exports_is_an_error_naming_both(tmp_path):
    for name in ("one", "two"):
        export(tmp_path / f"{name}-export.json", (asset("a.png"), []))
    with pytest.raises(AnnotationError, match=r"one-export\.json.*two-export\.json"):
        vott.read(tmp_path)
    assert len(vott.read(tmp_path / "two-export.json")[0]) == 1


def test_a_project_finds_its_images_elsewhere_by_name_and_folder(tmp_path):
    images = tmp_path / "images"
    paths = [
        save_image(images / "line1/0001.png"),
        save_image(images / "line2/0001.png"),
        save_image(images / "0002.png"),
    ]
    windows = "C:/Users/Someone/My Parts"
    folder = project(
        tmp_path / "project",
        (asset("0001.png", folder=f"{windows}/line2"), [region("Pits", "Spots")]),
        (asset("0001.png", folder=f"{windows}/line1"), [region("Spots")]),
        (asset("0002.png", folder=windows, state=1), []),
        (asset("0003.png", folder=windows, state=0), []),
    )
    records, tags = vott.read(folder, images)
    assert tags == ["Spots", "Pits"]
    assert [(r.path, [b.label for b in r.boxes]) for r in records] == [
        (paths[1], ["Pits", "Spots"]),
        (paths[0], ["Spots"]),
        (paths[2], []),
    ]
    assert vott.read(folder / "parts.vott", images)[0] == records


def test_a_name_that_could_be_two_images_is_an_error_naming_both(tmp_path):
    for line in ("line1", "line2"):
        save_image(tmp_path / "images" / line / "a.png")
    folder = project(tmp_path / "project", (asset("a.png", folder="/elsewhere"), [region("Pits")]))
    with pytest.raises(AnnotationError, match=r"line1/a\.png or .*line2/a\.png"):
        vott.read(folder, tmp_path / "images")


def test_a_tagged_image_whose_regions_are_lost_is_not_a_good_part(tmp_path, caplog):
    folder = project(tmp_path / "project", (asset("a.png"), []), (asset("b.png"), [region("Pits")]))
    save_image(folder / "a.png"), save_image(folder / "b.png")
    records, _ = vott.read(folder)
    assert [record.stem for record in records] == ["b"] and "regions are missing" in caplog.text


def test_a_project_beside_its_own_export_is_read_once(tmp_path):
    project(tmp_path, (asset("a.png"), [region("Pits")]))
    export(tmp_path / "vott-json-export/parts-export.json", (asset("a.png"), [region("Spots")]))
    [record], _ = vott.read(tmp_path)
    assert record.boxes[0].label == "Spots"


def test_names_that_vott_percent_encoded_are_found(tmp_path):
    export(tmp_path / "x-export.json", (asset("my%20part.png"), []), images=False)
    image = save_image(tmp_path / "my part.png")
    assert vott.read(tmp_path)[0][0].path == image


def test_images_given_by_image_dir_win_over_those_beside_the_export(tmp_path):
    export(tmp_path / "export/x-export.json", (asset("a.png"), []))
    other = save_image(tmp_path / "images/a.png")
    assert vott.read(tmp_path / "export", tmp_path / "images")[0][0].path == other


def test_missing_images_are_an_error_that_names_the_flag(tmp_path):
    export(tmp_path / "x-export.json", (asset("a.png"), []), images=False)
    with pytest.raises(AnnotationError, match=r"x-export\.json: .*image a\.png not found in .*--image_dir"):
        vott.read(tmp_path)
    with pytest.raises(AnnotationError, match=r"--image_dir .*nowhere: no such folder"):
        vott.read(tmp_path, tmp_path / "nowhere")


def test_who_does_not_ask_for_problems_is_told_of_any_missing_image(tmp_path):
    export(tmp_path / "x-export.json", (asset("a.png"), []), (asset("b.png"), []))
    (tmp_path / "b.png").unlink()
    with pytest.raises(AnnotationError, match=r"image b\.png not found"):
        vott.read(tmp_path)
    problems = []
    assert len(vott.read(tmp_path, None, problems)[0]) == len(problems) == 1


def test_a_layout_file_needs_no_images_but_sizes(tmp_path):
    export(tmp_path / "x-export.json", (asset("a.png"), [region("Pits")]), images=False)
    [record], _ = vott.read(tmp_path, require_images=False)
    assert record == ImageRecord(tmp_path / "a.png", 20, 10, (Box("Pits", 1, 2, 5, 8),))
    export(tmp_path / "x-export.json", (asset("a.png", size=None), []), images=False)
    with pytest.raises(AnnotationError, match=r"a\.png has no size"):
        vott.read(tmp_path, require_images=False)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"name": "x"}', '{"assets": {"1": {"regions": []}}}', '{"assets": {"1": 7}}']
)
def test_a_broken_file_is_an_error_in_one_line_naming_it(tmp_path, text):
    (tmp_path / "x-export.json").write_text(text)
    with pytest.raises(AnnotationError, match=r"x-export\.json") as error:
        vott.read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_vott_files_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match=r"-export\.json"):
        vott.read(tmp_path)
    with pytest.raises(AnnotationError, match="no such file or folder"):
        vott.read(tmp_path / "nowhere")
