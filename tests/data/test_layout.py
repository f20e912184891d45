import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.data.layout import NULL_PRODUCT, Layout

SAMPLES = [
    (torch.tensor([[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 1.2, 0.5]]), torch.tensor([3, 1]), 2),
    (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 1),
    (torch.tensor([[-0.1, 0.2, 0.3, 0.9]]), torch.tensor([2]), 0),
]


@pytest.fixture
def layout():
    return Layout.collate(SAMPLES)


def same(a, b):
    for name in ("boxes", "labels", "valid", "product"):
        assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0)


def test_collating_pads_with_invalid_objects_without_label(layout):
    assert len(layout) == 3 and layout.num_objects == 2
    assert layout.valid.tolist() == [[True, True], [False, False], [True, False]]
    assert layout.labels.tolist() == [[3, 1], [0, 0], [2, 0]]
    assert layout.product.tolist() == [2, 1, 0]
    for i, (boxes, _, _) in enumerate(SAMPLES):
        assert_close(layout.boxes[i, : len(boxes)], boxes)


def test_pictures_without_any_object_collate_to_no_objects():
    empty = Layout.collate([SAMPLES[1], SAMPLES[1]])
    assert empty.boxes.shape == (2, 0, 4) and empty.num_objects == 0 and empty.product.tolist() == [1, 1]


def test_padding_appends_and_keeps_the_rest(layout):
    padded = layout.pad(5)
    assert padded.num_objects == 5
    assert not padded.valid[:, 2:].any() and not padded.labels[:, 2:].any() and not padded.boxes[:, 2:].any()
    same(Layout(padded.boxes[:, :2], padded.labels[:, :2], padded.valid[:, :2], padded.product), layout)


def test_concatenated_layouts_are_what_collating_all_at_once_gives(layout):
    same(Layout.cat([Layout.collate(SAMPLES[1:]), Layout.collate(SAMPLES[:1])]), layout[torch.tensor([1, 2, 0])])


def test_an_index_takes_pictures(layout):
    same(layout[1:], Layout(layout.boxes[1:], layout.labels[1:], layout.valid[1:], layout.product[1:]))


def test_null_has_neither_objects_nor_product_but_as_many_pictures(layout):
    null = layout.null()
    assert len(null) == 3
    assert not null.valid.any() and not null.labels.any() and not null.boxes.any()
    assert null.product.tolist() == [NULL_PRODUCT] * 3


def test_null_equals_everything_dropped(layout):
    same(layout.drop(1.0), layout.null())


def test_nothing_is_dropped_at_rate_zero(layout):
    same(layout.drop(0), layout)


def test_dropping_takes_whole_pictures_each_on_its_own():
    many = Layout.cat([Layout.collate(SAMPLES[:1])] * 2000)
    dropped = many.drop(0.2, torch.rand(len(many), generator=torch.Generator().manual_seed(0)))
    gone = dropped.product == NULL_PRODUCT
    assert abs(gone.float().mean() - 0.2) < 0.03
    same(dropped[gone], many[gone].null())
    same(dropped[~gone], many[~gone])


def test_the_same_generator_state_drops_the_same_pictures(layout):
    many = Layout.cat([layout] * 20)
    first, second = (
        many.drop(0.5, torch.rand(len(many), generator=torch.Generator().manual_seed(7))) for _ in range(2)
    )
    same(first, second)


def test_a_good_part_has_no_objects_but_its_product_and_differs_from_null(layout):
    good = layout.good_part()
    assert not good.valid.any() and not good.labels.any() and not good.boxes.any()
    assert_close(good.product, layout.product)
    assert not torch.equal(good.product, layout.null().product)


def test_a_flip_mirrors_objects_and_leaves_padding_alone(layout):
    flipped = layout.flip()
    assert_close(flipped.boxes[0, 1], torch.tensor([-0.2, 0.0, 0.5, 0.5]))
    assert not flipped.boxes[1].any()
    assert_close(flipped.boxes[..., 2] - flipped.boxes[..., 0], layout.boxes[..., 2] - layout.boxes[..., 0])


def test_flipping_twice_changes_nothing(layout):
    assert_close(layout.flip().flip().boxes, layout.boxes)


def test_operations_leave_the_original_as_it_was(layout):
    layout.null(), layout.drop(1.0), layout.flip(), layout.good_part(), layout.pad(4)
    same(layout, Layout.collate(SAMPLES))


def test_a_layout_goes_to_a_device_whole(layout):
    moved = layout.to("meta")
    assert {moved.boxes.device.type, moved.labels.device.type, moved.valid.device.type, moved.product.device.type} == {
        "meta"
    }


def test_shapes_that_disagree_are_refused(layout):
    with pytest.raises(AssertionError):
        Layout(layout.boxes, layout.labels, layout.valid[:, :1], layout.product)
