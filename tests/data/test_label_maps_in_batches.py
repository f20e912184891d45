from pathlib import Path

import numpy as np
import pytest
import reading
import torch
from PIL import Image
from torch.testing import assert_close

from stay_diffusion.data import semantic_datasets
from stay_diffusion.data.annotations import AnnotationError, ImageRecord, MapFiles, Vocabulary
from stay_diffusion.data.codings import CODINGS
from stay_diffusion.data.formats import semantic_map
from stay_diffusion.data.layout import NULL_PRODUCT, Layout
from stay_diffusion.data.loader import collate, in_order
from stay_diffusion.data.transforms import CROP_POLICIES, cut_map
from stay_diffusion.layouts.items import from_dataset
from stay_diffusion.run import factory

VOCABULARY = Vocabulary(CODINGS["celeba"].classes)
GREYS_PER_ID = 12  # of 19 ids


@pytest.fixture
def faces(tmp_path):
    """faces(ids (H, W), ...) -> records of celeba's folders whose pictures' greys are their ids times 12."""

    def make(*maps):
        for name, ids in enumerate(maps):
            for kind, values in (("images", ids * GREYS_PER_ID), ("labels", ids)):
                (tmp_path / "train" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values.astype(np.uint8)).save(tmp_path / f"train/{kind}/{name}.png")
        return semantic_datasets.read("celeba", tmp_path, "train")

    return make


def two_ids(rng, height, width):
    """Rectangles of id 18 on id 0."""
    ids = np.zeros((height, width), np.uint8)
    for _ in range(3):
        y, x = rng.integers(height - 20), rng.integers(width - 20)
        ids[y : y + rng.integers(15, 40), x : x + rng.integers(15, 40)] = 18
    return ids


def dataset(records, **options):
    return reading.dataset_of(records, VOCABULARY, **{"image_size": 32, "image_channels": 1, **options})


def blocks(seed=0, height=48, width=64):
    """Blocks of 8 pixels of random ids."""
    ids = np.random.default_rng(seed).integers(0, 19, (height // 8, width // 8))
    return ids.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint8)


def same(a, b):
    for name in ("boxes", "labels", "valid", "product", "semantic_map"):
        assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


def test_a_cut_map_at_its_own_size_is_the_window_itself_and_its_mirror():
    ids = np.arange(12 * 17, dtype=np.int32).reshape(12, 17)
    np.testing.assert_array_equal(cut_map(ids, (5, 2, 13, 10), 8, mirrored=False), ids[2:10, 5:13])
    np.testing.assert_array_equal(cut_map(ids, (5, 2, 13, 10), 8, mirrored=True), ids[2:10, 5:13][:, ::-1])


def test_a_cut_map_repeats_when_enlarged_and_takes_centres_when_shrunk():
    ids = np.arange(16, dtype=np.int32).reshape(4, 4)
    np.testing.assert_array_equal(cut_map(ids, (0, 0, 4, 4), 8, mirrored=False), ids.repeat(2, 0).repeat(2, 1))
    wide = np.arange(9, dtype=np.int32).reshape(1, 9).repeat(3, axis=0)
    np.testing.assert_array_equal(cut_map(wide, (0, 0, 9, 3), 3, mirrored=False), [[1, 4, 7]] * 3)


def test_a_window_of_fractions_up_to_the_last_pixel_stays_inside():
    ids = np.arange(7, dtype=np.int32)[None].repeat(7, axis=0)
    assert cut_map(ids, (0.3, 0.3, 7.0, 7.0), 512, mirrored=False).max() == 6


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("policy", CROP_POLICIES)
def test_map_and_picture_show_the_same_under_every_crop_and_flip(faces, policy, flip):
    rng = np.random.default_rng(0)
    records = faces(*(two_ids(rng, *size) for size in ((50, 90), (97, 61), (64, 64), (40, 30))))
    for index in range(len(records)):
        for epoch in range(4):
            sample = dataset(records, crop_policy=policy, random_flip=flip).sample(index, epoch)
            grey = (sample.image[0] + 1) * 127.5 / (18 * GREYS_PER_ID)
            clear = (grey - 0.5).abs() > 0.25  # not where both ids share the pixel
            assert clear.float().mean() > 0.8
            other = (grey > 0.5)[clear] != (sample.semantic_map[0] == 19)[clear]
            assert other.float().mean() < 0.005  # corners


@pytest.mark.parametrize("policy", CROP_POLICIES)
def test_the_map_fills_the_boxes_of_its_objects(faces, policy):
    ids = np.zeros((60, 80), np.uint8)
    ids[10:40, 12:52] = 13
    for epoch in range(6):
        sample = dataset(faces(ids), crop_policy=policy, random_flip=True).sample(0, epoch)
        x0, y0, x1, y1 = (sample.boxes[0].clamp(0, 1) * 32).round().int().tolist()
        hair = torch.zeros(32, 32, dtype=torch.bool)
        hair[y0:y1, x0:x1] = True
        assert sample.labels.tolist() == [14]
        assert ((sample.semantic_map[0] == 14) != hair).sum() <= 64 + 64  # a pixel's rounding on each side


def test_an_object_outside_of_the_crop_takes_its_label_along(faces):
    ids = np.zeros((40, 120), np.uint8)
    ids[:, :35], ids[10:30, 50:70] = 13, 14
    sample = dataset(faces(ids), crop_policy="center").sample(0, 0)
    assert sample.labels.tolist() == [15] and sample.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]]


@pytest.mark.parametrize("policy", CROP_POLICIES)
def test_ids_are_never_mixed(faces, policy):
    noise = np.random.default_rng(1).choice(np.array([1, 4, 17], np.uint8), (70, 55))
    for epoch in range(5):
        sample = dataset(faces(noise), crop_policy=policy, random_flip=True).sample(0, epoch)
        assert set(sample.semantic_map[0].unique().tolist()) == {2, 5, 18}


def test_edges_are_those_of_the_map_as_it_is_seen(faces):
    sample = dataset(faces(blocks()), crop_policy="random", random_flip=True).sample(0, 3)
    labels, edges = sample.semantic_map
    assert sample.semantic_map.dtype == torch.int16 and sample.semantic_map.shape == (2, 32, 32)
    assert_close(edges.bool(), torch.from_numpy(semantic_map.edges(labels.numpy())))


def test_without_instance_maps_there_are_no_edges(faces):
    celeba = CODINGS["celeba"]
    records = [ImageRecord(r.path, 0, 0, maps=MapFiles(r.maps.labels, None, celeba)) for r in faces(blocks())]
    assert not dataset(records).sample(0, 0).semantic_map[1].any()


def test_edges_tell_16_bit_instances_of_one_class_apart(tmp_path):
    raw = np.full((32, 32), 26001, np.uint16)
    raw[:, 16:] = 26257
    for name, values in (("image", raw > 0), ("labels", raw * 0 + 26), ("instances", raw)):
        Image.fromarray(values.astype(np.uint16 if name == "instances" else np.uint8)).save(tmp_path / f"{name}.png")
    maps = MapFiles(tmp_path / "labels.png", tmp_path / "instances.png", CODINGS["cityscapes"])
    records = [ImageRecord(tmp_path / "image.png", 0, 0, maps=maps)]
    sample = dataset(records).sample(0, 0)
    assert sample.semantic_map[1].sum(dim=0).nonzero().flatten().tolist() == [15, 16]
    assert sample.boxes.tolist() == [[0, 0, 0.5, 1], [0.5, 0, 1, 1]] and sample.labels.tolist() == [27, 27]
    assert dataset(records, no_instance=True).sample(0, 0).boxes.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("no_instance", [False, True])
def test_no_instance_takes_connected_parts_as_objects(tmp_path, tiny_run, no_instance):
    raw = np.full((32, 32), 26001, np.uint16)
    raw[:, 16:] = 26002
    Image.new("L", (32, 32)).save(tmp_path / "image.png")
    Image.new("L", (32, 32), 26).save(tmp_path / "labels.png")
    Image.fromarray(raw).save(tmp_path / "instances.png")
    maps = MapFiles(tmp_path / "labels.png", tmp_path / "instances.png", CODINGS["cityscapes"])
    config = tiny_run(data={"dataset_mode": "cityscapes"}, model={"no_instance": no_instance})
    built = factory.build_dataset([ImageRecord(tmp_path / "image.png", 0, 0, maps=maps)], config, augment=True)
    assert len(built.sample(0, 0).labels) == (1 if no_instance else 2)


@pytest.mark.parametrize("policy", ["resize", "center"])
def test_sampling_sees_what_training_without_augmentation_saw(faces, tiny_run, policy):
    data = {"dataset_mode": "celeba", "classes": VOCABULARY.classes, "product_tags": (), "crop_policy": policy}
    config, records = tiny_run(data=data), faces(blocks(0), blocks(1))
    trained, sampled = (factory.build_dataset(records, config, augment=augment) for augment in (True, False))
    for index, item in enumerate(from_dataset(sampled)):
        seen = trained.sample(index, epoch=5)
        same(Layout.collate([seen[1:]]), Layout.collate([item.tensors(VOCABULARY)]))
        assert len(seen.labels) > 3
        assert_close(item.real().image, seen.image, rtol=0, atol=0)


def test_a_map_of_another_size_than_its_picture_is_named_with_both(faces):
    records = faces(blocks())
    Image.new("L", (20, 30)).save(records[0].maps.labels)
    with pytest.raises(AnnotationError, match=r"images/0\.png: its label map .*labels/0\.png has 20x30 .* has 64x48"):
        dataset(records).sample(0, 0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_carry_their_maps_and_a_broken_map_ends_with_its_name(faces, num_workers):
    records = faces(*(blocks(seed) for seed in range(3)))
    whole = dataset(records)
    (first, layout), (_, last) = in_order(whole, 2, num_workers)
    expected, expected_layout = collate([whole.sample(0, 0), whole.sample(1, 0)])
    assert_close(first, expected)
    same(layout, expected_layout)
    assert layout.semantic_map.shape == (2, 2, 32, 32) and last.semantic_map.shape == (1, 2, 32, 32)
    Path(records[1].maps.labels).write_bytes(b"no picture")
    with pytest.raises(AnnotationError, match=r"labels/1\.png: not an image"):
        list(in_order(whole, 2, num_workers))


@pytest.fixture
def layout(faces):
    whole = dataset(faces(*(blocks(seed) for seed in range(3))))
    return collate([whole.sample(i, 0) for i in range(3)])[1]


def test_padding_indexing_joining_and_moving_keep_each_pictures_map(layout):
    assert_close(layout.pad(layout.num_objects + 2).semantic_map, layout.semantic_map)
    same(layout[torch.tensor([2, 0])], Layout.cat([layout[2:], layout[:1]]).pad(layout.num_objects))
    same(layout.to("cpu"), layout)
    assert layout.to("meta").semantic_map.device.type == "meta"


def test_null_has_an_empty_map(layout):
    assert not layout.null().semantic_map.any() and layout.null().semantic_map.shape == layout.semantic_map.shape
    same(layout.with_null()[3:], layout.null())
    same(layout.with_null()[:3], layout)


def test_dropping_empties_the_maps_of_just_the_dropped_pictures(layout):
    dropped = layout.drop(0.5, torch.rand(len(layout), generator=torch.Generator().manual_seed(0)))
    gone = dropped.product == NULL_PRODUCT
    assert gone.any() and not gone.all()
    assert not dropped.semantic_map[gone].any()
    assert_close(dropped.semantic_map[~gone], layout.semantic_map[~gone])
    assert layout.semantic_map[gone].any()  # the original is as it was


def test_a_flip_mirrors_the_map_with_the_boxes(layout):
    assert_close(layout.flip().semantic_map, layout.semantic_map.flip(3))


def test_a_picture_with_a_map_is_read_as_it_is_stored(tmp_path):
    ids = np.zeros((8, 8), dtype=np.uint8)
    ids[:2] = 5
    for kind in ("images", "labels"):
        (tmp_path / "train" / kind).mkdir(parents=True)
    Image.fromarray(ids).save(tmp_path / "train/labels/a.png")
    upside_down = Image.Exif()
    upside_down[0x0112] = 3
    Image.fromarray(ids * GREYS_PER_ID).save(tmp_path / "train/images/a.png", exif=upside_down)
    shown = dataset(semantic_datasets.read("celeba", tmp_path, "train"), image_size=8)
    sample = shown.sample(0, 0)
    assert_close((sample.image[0] + 1) * 127.5, torch.from_numpy(ids * GREYS_PER_ID).float(), rtol=0, atol=1)


def test_the_objects_of_a_map_are_found_once(faces, monkeypatch):
    calls = []
    found = semantic_map.objects
    monkeypatch.setattr(semantic_map, "objects", lambda *arguments: calls.append(1) or found(*arguments))
    shown = dataset(faces(np.full((8, 8), 5, dtype=np.uint8)), image_size=8)
    assert len({shown.sample(0, epoch).labels.tolist()[0] for epoch in range(3)}) == len(calls) == 1
