"""What image_sample.py labels its samples with: data sets in every format, weak masks, provenance in the pictures."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from reading import load_records

from stay_diffusion.data.annotations import Box, RelativeBox, Vocabulary, assign_products
from stay_diffusion.data.exports import READ_AS
from stay_diffusion.data.formats import coco, vott
from stay_diffusion.data.provenance import read_provenance
from stay_diffusion.layouts.items import LayoutItem
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder, save_tensors, sha256
from stay_diffusion.sampling.results import ResultsFolder

SAMPLE = "scripts/image_sample.py"
VOCABULARY = Vocabulary(("spot", "line"), ("A",))
LAYOUTS = [
    {"stem": "two", "product": "A", "objects": [{"label": "line", "box": [-0.25, 0.1, 0.5, 0.6]}] * 2},
    {"stem": "good", "product": "A", "objects": []},
    {"stem": "plain", "product": None, "objects": []},
    {"stem": "one ä", "product": None, "objects": [{"label": "spot", "box": [0.5, 0.5, 0.9, 1.2]}]},
]
ALL = ["--export", "vott,coco,voc,yolo", "--masks", "True"]


@pytest.fixture(scope="module")
def command(tiny_run, tmp_path_factory):
    """Sampling the layouts above with a random network that sees objects."""
    folder = tmp_path_factory.mktemp("a run")
    run = tiny_run(model={"image_size": 16})
    torch.manual_seed(0)
    network = factory.build_model(run)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.3)
    RunFolder(folder).write_config(run)
    save_tensors(folder / "model.pt", network.state_dict())
    (folder / "layouts.jsonl").write_text("".join(json.dumps(layout) + "\n" for layout in LAYOUTS))
    words = ["--model_path", folder / "model.pt", "--layouts", folder / "layouts.jsonl", "--num_steps", 2]
    return [SAMPLE, *words, "--batch_size", 3]


@pytest.fixture(scope="module")
def results(command, run_script, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled") / "my results"
    run_script(*command, "--results_path", folder, *ALL)
    return folder


@pytest.fixture(scope="module")
def unmasked(command, run_script, tmp_path_factory):
    """The same in VoTT alone, without masks."""
    folder = tmp_path_factory.mktemp("unlabelled") / "my results"
    run_script(*command, "--results_path", folder)
    return folder


@pytest.fixture
def copied(results, unmasked, tmp_path):
    return [shutil.copytree(folder, tmp_path / str(i)) for i, folder in enumerate((results, unmasked))]


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def entries(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def expected_boxes(line, side):
    """The line's objects in pixels, clipped."""
    return [(o["label"], *(side * min(max(x, 0), 1) for x in o["box"])) for o in line["layout"]["objects"]]


@pytest.mark.parametrize("fmt", READ_AS)
def test_every_export_is_a_data_set_with_the_layouts_boxes(results, fmt):
    folder = results / ("samples" if fmt == "vott" else fmt)
    records, names = load_records(READ_AS[fmt], folder, "train", val_fraction=0)
    assert set(names.classes) == {"spot", "line"} and names.products == ("A",)
    records = {record.stem: record for record in records}
    assert records.keys() == {layout["stem"] for layout in LAYOUTS}
    for line in entries(results):
        record = records[line["stem"]]
        assert record.product == line["layout"]["product"] and (record.width, record.height) == (16, 16)
        assert record.path.samefile(results / line["file"])  # the same file, not a copy
        found = [(box.label, box.x0, box.y0, box.x1, box.y1) for box in record.boxes]
        expected = expected_boxes(line, 16)
        assert [box[0] for box in found] == [box[0] for box in expected]
        for box, other in zip(found, expected, strict=True):
            assert box[1:] == pytest.approx(other[1:], rel=0, abs=1e-3)


def test_only_the_formats_that_are_asked_for_are_written(unmasked, command, run_script, tmp_path):
    names = {"samples", "images", "labels", "manifest.jsonl", "preview.png", ".lock"}
    assert {path.name for path in unmasked.iterdir()} == names
    run_script(*command, "--results_path", tmp_path, "--export", "yolo")
    assert {path.name for path in tmp_path.iterdir()} == names | {"yolo"}
    assert not list(tmp_path.glob("samples/*.json"))


def test_other_formats_come_by_the_same_command_without_sampling_again(command, results, run_script, tmp_path):
    place = ["--results_path", tmp_path / "my results", "--masks", True]
    run_script(*command, *place)
    output = run_script(*command, *place, "--export", "vott,coco,voc,yolo").output
    assert "4 of 4 done already" in output
    assert tree(tmp_path / "my results") == tree(results)


def test_labels_and_masks_are_the_same_from_two_processes(command, results, start_ranks, tmp_path):
    started = start_ranks(2, *command, "--results_path", tmp_path / "my results", *ALL)
    assert [each.end().code for each in started] == [0, 0]
    assert tree(tmp_path / "my results") == tree(results)


# Weak masks


def test_masks_hold_class_ids_inside_their_boxes(results):
    assert (results / "masks/classes.txt").read_text().splitlines() == ["spot", "line"]
    masked = 0
    for line in entries(results):
        with Image.open(results / line["mask"]) as mask:
            assert mask.mode == "L" and mask.size == (16, 16)
            ids = np.asarray(mask)
        near = np.zeros((16, 16), bool)
        for _, x0, y0, x1, y1 in expected_boxes(line, 16):
            near[max(int(y0) - 2, 0) : int(y1 + 0.999) + 2, max(int(x0) - 2, 0) : int(x1 + 0.999) + 2] = True
        assert not ids[~near].any()
        wanted = {VOCABULARY.classes.index(o["label"]) + 1 for o in line["layout"]["objects"]}
        assert set(np.unique(ids)) - {0} <= wanted
        masked += bool(ids.any())
    assert masked  # a random network changes everything a little: not every box stands out


def test_coco_has_the_masks_of_its_boxes_and_the_manifest_calls_them_weak(results):
    codes = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    content = json.loads((results / "coco/annotations/instances_train.json").read_text())
    files = {image["id"]: image["file_name"] for image in content["images"]}
    for line in entries(results):
        assert line["mask_kind"] == "weak"
        own = [a for a in content["annotations"] if files[a["image_id"]] == f"{line['stem']}.png"]
        assert [a["segmentation"] for a in own] == line["masks"] and all(a["weak"] is True for a in own)
        union = np.zeros((16, 16), bool)
        for annotation in own:
            union |= codes.decode(annotation["segmentation"]).astype(bool)
        assert np.array_equal(union, np.asarray(Image.open(results / line["mask"])) > 0)


def test_samples_with_and_without_masks_are_not_mixed(command, copied, run_script):
    with_masks, without = copied
    ended = run_script(*command, "--results_path", with_masks, code=1)
    assert "mask_kind of image 0 is 'weak', now None" in ended.output.splitlines()[-1]
    ended = run_script(*command, "--results_path", without, "--masks", True, code=1)
    assert "mask_kind of image 0 is None, now 'weak'" in ended.output.splitlines()[-1]


def test_masks_do_not_change_the_samples(results, unmasked):
    for layout in LAYOUTS:
        name = f"samples/{layout['stem']}.png"
        first, second = (np.asarray(Image.open(folder / name)) for folder in (results, unmasked))
        assert np.array_equal(first, second)


# Provenance


def test_every_sample_says_how_it_was_made(results, command):
    weights = command[2]
    for line in entries(results):
        told = read_provenance(results / "yolo/images/train" / f"{line['stem']}.png")
        assert told == {
            **{key: value for key, value in line.items() if key != "masks"},
            "checkpoint": "model.pt",
            "source": "layouts.jsonl",
        }
        assert told["checkpoint_sha256"] == sha256(weights)
        assert {"seed", "s", "sampler", "timestep_respacing", "layout"} <= told.keys()


# The folder by itself, with pictures of any kind


def deep(size, low=1000, high=4000):
    """A 16-bit grey of 12 bits' values."""
    width, height = size
    return Image.fromarray(np.linspace(low, high, width * height).reshape(height, width).astype(np.uint16))


PICTURES = {
    "grey": Image.fromarray(np.arange(60 * 40, dtype=np.uint8).reshape(40, 60)),
    "colour": Image.fromarray(np.arange(70 * 90 * 3, dtype=np.uint8).reshape(90, 70, 3)),
    "deep": deep((300, 20)),
}


@pytest.fixture
def mixed(tmp_path):
    """A folder of three pictures of three sizes and kinds, and its items."""
    folder = ResultsFolder(tmp_path / "mixed", VOCABULARY)
    folder.open()
    items = [LayoutItem(name, "A", (RelativeBox("line", 0.1, 0.25, 0.5, 0.75),), "test") for name in PICTURES]
    for index, item in enumerate(items):
        folder.add(index, item, PICTURES[item.stem], {"seed": 3}, extra={"attempt": index})
    return folder, items


def test_pictures_of_any_size_and_depth_are_kept_as_they_are(mixed):
    folder, items = mixed
    folder.finish(items, save_npz=False, formats=tuple(READ_AS))
    for item in items:
        with Image.open(folder.path / f"samples/{item.stem}.png") as image:
            assert image.mode == PICTURES[item.stem].mode
            assert np.array_equal(np.asarray(image), np.asarray(PICTURES[item.stem]))
        with Image.open(folder.path / f"labels/{item.stem}.png") as label:
            assert label.size == PICTURES[item.stem].size
    for records in (vott.read(folder.path / "samples")[0], coco.read(folder.path / "coco")[0]):
        for record in assign_products(records, ["A"]):
            W, H = PICTURES[record.stem].size
            assert record.boxes == (Box("line", 0.1 * W, 0.25 * H, 0.5 * W, 0.75 * H),)


def test_the_sheet_of_large_pictures_stays_small_and_shows_deep_greys(mixed):
    folder, items = mixed
    items.append(LayoutItem("large", None, (), "test"))
    folder.add(3, items[-1], deep((1600, 1200)), {"seed": 3})
    folder.finish(items, save_npz=False)
    with Image.open(folder.path / "preview.png") as sheet:
        assert sheet.width < 3 * 2 * 256 + 100 and sheet.height < 800
        shown = np.asarray(sheet.convert("L"))
    assert (shown > 150).sum() > 256 * 190 * 0.3  # the large one's lighter half


def test_the_source_is_kept_in_place_of_the_layouts_own_picture(tmp_path, tiny_run, tiny_data):
    run = tiny_run(data={"data_dir": str(tiny_data), "classes": (), "product_tags": ()})
    run = factory.with_vocabulary(run, factory.read_split(run.data, "train")[1])
    dataset = factory.build_dataset(factory.read_split(run.data, "val")[0], run, augment=False)
    item = LayoutItem("one", None, (), "test", dataset, 0)
    folder = ResultsFolder(tmp_path, factory.vocabulary_of(run))
    folder.open()
    folder.add(0, item, deep((50, 30)), {}, source_image=deep((50, 30), 0, 65535), extra={"source_image": "x/y.png"})
    with Image.open(tmp_path / "images/one.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(deep((50, 30), 0, 65535)))
    assert entries(tmp_path)[0]["source_image"] == "x/y.png"
    assert read_provenance(tmp_path / "samples/one.png")["source_image"] == "y.png"


def test_what_else_is_said_of_an_image_does_not_stand_in_the_way_of_continuing(mixed):
    folder, items = mixed
    assert folder.done(items, {"seed": 3}) == {0, 1, 2}
    assert [line["attempt"] for line in entries(folder.path)] == [0, 1, 2]
    with pytest.raises(ValueError, match="seed of image 0 is 3, now 4"):
        folder.done(items, {"seed": 4})


def test_one_array_of_several_sizes_is_refused(mixed):
    folder, items = mixed
    with pytest.raises(ValueError, match="--save_npz True: the samples are of several sizes"):
        folder.finish(items, save_npz=True)


def test_the_masks_of_boxes_outside_of_the_picture_go_with_them(tmp_path):
    codes = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    outside, inside = RelativeBox("spot", 1.1, 0, 1.4, 0.5), RelativeBox("line", 0, 0, 0.5, 0.5)
    mask = np.zeros((16, 16), np.uint8)
    mask[2:6, 1:7] = 1
    code = [
        {"size": [16, 16], "counts": codes.encode(np.asfortranarray(m))["counts"].decode()} for m in (0 * mask, mask)
    ]
    item = LayoutItem("one", None, (outside, inside), "test")
    folder = ResultsFolder(tmp_path, VOCABULARY)
    folder.open()
    picture = Image.new("L", (16, 16))
    folder.add(0, item, picture, {}, mask=Image.fromarray(mask * 2), extra={"masks": code})
    folder.add(1, LayoutItem("good", None, (), "test"), picture, {})
    folder.finish([item, LayoutItem("good", None, (), "test")], save_npz=False, formats=("coco",))
    (annotation,) = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())["annotations"]
    assert annotation["category_id"] == 2 and annotation["bbox"] == [0, 0, 8, 8]
    assert np.array_equal(codes.decode(annotation["segmentation"]), mask)
