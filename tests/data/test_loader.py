import itertools
import signal

import numpy as np
import pytest
import reading
import torch
from PIL import Image

from stay_diffusion.data import loader, samples
from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord, Vocabulary
from stay_diffusion.data.images import ImageError
from stay_diffusion.data.layout import Layout
from stay_diffusion.data.loader import batches, collate, in_order

VOCABULARY = Vocabulary(classes=("spot", "scratch"), products=("A", "B"))


@pytest.fixture
def records(tmp_path):
    """Seven 32x24 pictures; picture i has the grey 20 * i and i % 3 boxes."""
    made = []
    for i in range(7):
        path = tmp_path / f"{i}.png"
        Image.new("L", (32, 24), 20 * i).save(path)
        boxes = tuple(Box(VOCABULARY.classes[j % 2], 4 * j, 3, 4 * j + 12, 15) for j in range(i % 3))
        made.append(ImageRecord(path, 32, 24, boxes, product=(None, "A", "B")[i % 3]))
    return made


def dataset(records, **changes):
    options = {"image_size": 16, "image_channels": 1} | changes
    return reading.dataset_of(records, VOCABULARY, **options)


def shown(images):
    """Which of the fixture's pictures these are, by their greys."""
    return [round(float((image.mean() + 1) * 127.5 / 20)) for image in images]


def take(batch_iterator, num):
    return list(itertools.islice(batch_iterator, num))


def record_with_boxes(tmp_path, num):
    path = tmp_path / "many.png"
    Image.new("L", (64, 64)).save(path)
    boxes = tuple(Box("spot", 10 * i, 0, 10 * i + 1 + i, 10) for i in range(num))  # i + 1 wide
    return ImageRecord(path, 64, 64, boxes)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_sample_is_an_image_with_its_boxes_labels_and_product(records, channels):
    image, boxes, labels, product, _ = dataset(records, image_channels=channels).sample(5, 0)
    torch.testing.assert_close(image, torch.full((channels, 16, 16), 100 / 127.5 - 1))
    torch.testing.assert_close(boxes, torch.tensor([[0, 3 / 24, 12 / 32, 15 / 24], [4 / 32, 3 / 24, 16 / 32, 15 / 24]]))
    assert labels.tolist() == [1, 2] and labels.dtype == torch.long and product == 2


def test_labels_stay_with_their_boxes_when_others_are_cut_away_or_over_the_limit(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("L", (64, 16)).save(path)
    outside, small, large = Box("spot", 0, 0, 9, 9), Box("spot", 26, 2, 28, 4), Box("scratch", 30, 2, 38, 10)
    wide = ImageRecord(path, 64, 16, (outside, small, large))
    limited = dataset([wide], crop_policy="center", max_objects=1, max_objects_policy="largest")
    assert limited.sample(0, 0)[2].tolist() == [2]
    assert dataset([wide], crop_policy="center").sample(0, 0)[2].tolist() == [1, 2]


def test_a_picture_without_objects_keeps_its_product(records):
    good = ImageRecord(records[0].path, 32, 24, product="A")
    _, boxes, labels, product, _ = dataset([good]).sample(0, 0)
    assert boxes.shape == (0, 4) and boxes.dtype == torch.float32 and labels.shape == (0,) and product == 1


def test_random_choices_depend_on_seed_epoch_and_index_alone(records):
    cropped = dataset(records * 2, crop_policy="random", random_flip=True, seed=3)
    first = cropped.sample(2, 5)[1]
    cropped.sample(4, 1)
    torch.testing.assert_close(cropped.sample(2, 5)[1], first, rtol=0, atol=0)
    other_seed = dataset(records * 2, crop_policy="random", random_flip=True, seed=4)
    for other in (cropped.sample(2, 6), cropped.sample(9, 5), other_seed.sample(2, 5)):
        assert not torch.equal(other[1], first)


def test_an_image_of_another_size_than_annotated_is_an_error_with_both_sizes(records):
    wrong = ImageRecord(records[0].path, 24, 32)
    with pytest.raises(AnnotationError, match=r"0\.png: annotated as 24x32 pixels but the image has 32x24"):
        dataset([wrong]).sample(0, 0)


def test_more_objects_than_allowed_is_an_error_with_file_and_count(tmp_path):
    with pytest.raises(AnnotationError, match=r"many\.png: 5 objects, more than --max_objects 4"):
        dataset([record_with_boxes(tmp_path, 5)], max_objects=4, image_size=64).sample(0, 0)


@pytest.mark.parametrize("max_objects", [0, 5])
def test_as_many_objects_as_allowed_are_all_kept(tmp_path, max_objects):
    assert len(dataset([record_with_boxes(tmp_path, 5)], max_objects=max_objects, image_size=64).sample(0, 0)[2]) == 5


def test_the_largest_objects_are_kept_in_their_order(tmp_path):
    limited = dataset([record_with_boxes(tmp_path, 5)], max_objects=2, max_objects_policy="largest", image_size=64)
    torch.testing.assert_close(limited.sample(0, 0)[1][:, 0], torch.tensor([30.0, 40.0]) / 64)


def test_random_objects_are_kept_in_their_order_and_vary_by_epoch(tmp_path):
    limited = dataset([record_with_boxes(tmp_path, 5)], max_objects=2, max_objects_policy="random", image_size=64)
    kept = {tuple((limited.sample(0, epoch)[1][:, 0] * 6.4).round().int().tolist()) for epoch in range(60)}
    assert kept == set(itertools.combinations(range(5), 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_policy": "centre"}, "--crop_policy centre: choose from resize, center, random, object"),
        ({"max_objects_policy": "all"}, "--max_objects_policy all: choose from error, largest, random"),
    ],
)
def test_an_unknown_policy_is_an_error_with_the_known_ones(records, options, message):
    with pytest.raises(ValueError, match=message):
        dataset(records, **options)


def test_collating_pads_to_the_most_objects(records):
    images, layout = collate([dataset(records).sample(i, 0) for i in (0, 2, 4)])
    assert images.shape == (3, 1, 16, 16)
    assert layout.valid.tolist() == [[False, False], [True, True], [True, False]]
    assert layout.labels.tolist() == [[0, 0], [1, 2], [1, 0]] and layout.product.tolist() == [0, 2, 1]


def test_every_image_is_seen_once_in_every_epoch_and_epochs_differ(records):
    seen = [i for images, _ in take(batches(dataset(records), 2, seed=1, start=0), 14) for i in shown(images)]
    epochs = [seen[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 2


def test_another_seed_gives_another_order(records):
    first, second = (shown(next(batches(dataset(records), 7, seed=seed, start=0))[0]) for seed in (1, 2))
    assert first != second


@pytest.mark.parametrize("start", [3, 9, 14])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_resuming_continues_exactly(records, start, num_workers):
    data = dataset(records, crop_policy="random", random_flip=True, seed=5)
    through = [s for i, l in take(batches(data, 1, 5, 0), start + 4) for s in ((i, l.boxes, l.product),)]
    resumed = take(batches(data, 2, 5, start, num_workers=num_workers), 2)
    for step, (images, layout) in enumerate(resumed):
        for row in range(2):
            image, boxes, product = through[start + 2 * step + row]
            torch.testing.assert_close(images[row], image[0], rtol=0, atol=0)
            torch.testing.assert_close(layout.boxes[row, : boxes.shape[1]], boxes[0], rtol=0, atol=0)
            assert layout.product[row] == product[0]


@pytest.mark.parametrize("start", [0, 5])
def test_two_ranks_together_see_what_one_rank_with_the_double_batch_sees(records, start):
    data = dataset(records)
    one = take(batches(data, 4, seed=1, start=start), 6)
    ranks = [take(batches(data, 2, seed=1, start=start, rank=rank, world=2), 6) for rank in (0, 1)]
    for step in range(6):
        together = shown(ranks[0][step][0]) + shown(ranks[1][step][0])
        assert sorted(together) == sorted(shown(one[step][0]))


@pytest.mark.parametrize("start", [4, 5])
def test_a_rank_has_the_positions_that_leave_its_number_as_remainder(records, start):
    data = dataset(records)
    positions = [shown(images)[0] for images, _ in take(batches(data, 1, seed=1, start=0), 20)]
    for rank in (0, 1):
        seen = [shown(images)[0] for images, _ in take(batches(data, 1, 1, start, rank, world=2), 5)]
        assert seen == [positions[p] for p in range(start, 20) if p % 2 == rank][:5]


def test_opening_batches_leaves_the_global_generator_alone(records):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    take(batches(dataset(records), 2, seed=1, start=0), 3)
    list(in_order(dataset(records), 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_larger_than_the_data_set_is_an_error_at_once(records):
    with pytest.raises(ValueError, match="--batch_size 8 but the data set has only 7"):
        batches(dataset(records), 8, seed=0, start=0)
    with pytest.raises(ValueError, match="--batch_size 4 on 2 ranks takes 8 images a step but the data set has only 7"):
        batches(dataset(records), 4, seed=0, start=0, world=2)


def test_a_batch_may_be_the_whole_data_set(records):
    for images, _ in take(batches(dataset(records), 7, seed=0, start=0), 2):
        assert sorted(shown(images)) == list(range(7))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_broken_image_stops_with_one_line_that_names_it(records, num_workers):
    records[3].path.write_bytes(b"broken")
    with pytest.raises(ImageError) as error:
        take(batches(dataset(records), 2, seed=0, start=0, num_workers=num_workers), 4)
    assert str(error.value) == f"{records[3].path}: not an image, or of an unknown format"


def test_a_fault_of_ours_keeps_its_traceback(records, monkeypatch):
    monkeypatch.setattr(samples, "read_picture", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(batches(dataset(records), 2, seed=0, start=0))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_validation_shows_every_image_once_in_order_with_a_partial_last_batch(records, num_workers):
    given = list(in_order(dataset(records), 3, num_workers))
    assert [shown(images) for images, _ in given] == [[0, 1, 2], [3, 4, 5], [6]]
    assert all(isinstance(layout, Layout) and len(layout) == len(images) for images, layout in given)


def test_validation_is_the_same_each_time(records):
    data = dataset(records, crop_policy="object", random_flip=True)
    for (first, a), (second, b) in zip(in_order(data, 4), in_order(data, 4), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=0)


def test_workers_leave_an_interrupt_to_the_parent():
    handler = signal.getsignal(signal.SIGINT)
    try:
        loader._ignore_signals(0)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


def test_the_order_of_an_epoch_is_no_copy_of_a_samples_own_draws():
    order = [index for _, index in itertools.islice(loader._shuffled(50, 1, 0, 0, 1), 50)]
    for index in range(50):
        assert order != np.random.default_rng((1, 0, index)).permutation(50).tolist()
