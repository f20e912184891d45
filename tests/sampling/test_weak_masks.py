import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.sampling import weak_masks

H, W = 96, 128


def pair(changed, mode="L", noise=6.0, step=70, seed=0):
    """A textured picture with `changed` pixels (H, W) brighter, and the same without; each with noise of its own."""
    rng = np.random.default_rng(seed)
    scale = 256 if mode == "I;16" else 1
    shape = (H, W, 3) if mode == "RGB" else (H, W)
    surface = 110 + 25 * np.sin(np.arange(W) / 3) + np.zeros(shape[:2])

    def picture(values):
        values = values[..., None] if mode == "RGB" else values
        values = ((values + rng.normal(0, noise, shape)) * scale).clip(0, 256 * scale - 1)
        return Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))

    return picture(surface + step * changed), picture(surface)


def disk(x, y, radius):
    rows, columns = np.mgrid[:H, :W] + 0.5
    return np.hypot(columns - x, rows - y) < radius


def around(x0, y0, x1, y1, label="spot"):
    return RelativeBox(label, x0 / W, y0 / H, x1 / W, y1 / H)


def overlap(mask, other):
    return (mask & other).sum() / (mask | other).sum()


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_planted_blobs_are_found_under_noise_each_by_its_box(mode):
    blobs = [disk(30, 40, 14), disk(90, 60, 9)]
    drawn, good = pair(blobs[0] | blobs[1], mode)
    assert drawn.mode == mode
    found = weak_masks.find(drawn, good, [around(14, 24, 46, 56), around(80, 50, 100, 70)])
    assert found.shape == (2, H, W) and found.dtype == bool
    assert overlap(found[0], blobs[0]) > 0.9 and overlap(found[1], blobs[1]) > 0.9


@pytest.mark.parametrize(
    ("label", "least"), [("Spots", 0.9), ("Stains", 0.9), ("Inclusions", 0.9), ("Scratches", 0.8), ("Pits", 0.65)]
)
def test_the_synthetic_defects_are_found(synthetic_sdi, label, least):
    """Scratches are two or three pixels wide; pits have a rim as light as the surface."""
    shares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        surface = synthetic_sdi.brushed_metal(rng, 120, 160)
        painted = None
        while painted is None:
            painted = synthetic_sdi.paint_defect(rng, surface, label)
        picture, box = painted
        changed = np.abs(picture - surface)
        drawn, good = (
            Image.fromarray(np.uint8((255 * x + rng.normal(0, 3, x.shape)).clip(0, 255))) for x in (picture, surface)
        )
        box = RelativeBox(label, box.x0 / 160, box.y0 / 120, box.x1 / 160, box.y1 / 120)
        shares.append(overlap(weak_masks.find(drawn, good, [box])[0], changed > 0.4 * changed.max()))
    assert np.mean(shares) > least


def test_where_nothing_changed_the_mask_is_empty():
    boxes = [around(14, 24, 46, 56)]
    drawn, _ = pair(np.zeros((H, W)))
    assert not weak_masks.find(drawn, drawn, boxes).any()
    for seed in range(10):
        assert not weak_masks.find(*pair(np.zeros((H, W)), seed=seed), boxes).any()


def test_a_box_in_which_nothing_happened_has_an_empty_mask_beside_one_in_which_something_did():
    drawn, good = pair(disk(30, 40, 14))
    found = weak_masks.find(drawn, good, [around(14, 24, 46, 56), around(80, 50, 100, 70)])
    assert found[0].any() and not found[1].any()


def test_what_changed_far_from_all_boxes_is_no_object():
    drawn, good = pair(disk(30, 40, 14) | disk(90, 60, 9))
    found = weak_masks.find(drawn, good, [around(14, 24, 46, 56)])
    assert not (found[0] & disk(90, 60, 12)).any() and overlap(found[0], disk(30, 40, 14)) > 0.9


def test_a_few_changes_elsewhere_do_not_hide_an_object():
    elsewhere = disk(100, 20, 9) | disk(110, 80, 7)  # as where a model draws a line a little differently
    drawn, good = pair(disk(30, 40, 14) | elsewhere, step=140)
    (found,) = weak_masks.find(drawn, good, [around(14, 24, 46, 56)])
    assert overlap(found, disk(30, 40, 14)) > 0.9


def test_holes_are_filled_and_specks_are_not_kept():
    blob = disk(40, 45, 16)
    changed = (blob & ~disk(40, 45, 4)) | disk(24.5, 29.5, 1)
    drawn, good = pair(changed, noise=1)
    (found,) = weak_masks.find(drawn, good, [around(22, 27, 58, 63)])
    assert found[45, 40] and not found[29, 24] and overlap(found, blob) > 0.9


def test_a_mask_may_reach_a_little_out_of_its_box_but_not_into_anothers():
    drawn, good = pair(disk(40, 45, 10) | disk(60, 45, 10), noise=1)  # they touch at 50
    first, second = weak_masks.find(drawn, good, [around(33, 35, 50, 55), around(50, 35, 70, 55)])
    assert first[45, 31] and not first[45, 20]  # two pixels out of the box, but not twenty
    assert first[:, :50].any() and not first[:, 50:].any()
    assert second[:, 50:].any() and not second[:, :50].any()


def test_what_changed_beside_a_box_is_not_its_object():
    drawn, good = pair(disk(40, 45, 12) | disk(58, 45, 3), noise=1)
    (found,) = weak_masks.find(drawn, good, [around(26, 31, 54, 59)])  # reaches to 57
    assert overlap(found, disk(40, 45, 12)) > 0.9 and not found[:, 54:].any()


def test_objects_that_reach_out_of_the_picture_are_masked_inside():
    drawn, good = pair(disk(0, 0, 12))
    (found,) = weak_masks.find(drawn, good, [RelativeBox("spot", -0.1, -0.125, 12 / W, 12 / H)])
    assert overlap(found, disk(0, 0, 12)) > 0.9


def test_a_picture_without_objects_has_no_masks():
    assert weak_masks.find(*pair(np.zeros((H, W))), []).shape == (0, H, W)


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="cannot be compared"):
        weak_masks.find(Image.new("L", (8, 8)), Image.new("L", (8, 9)), [])


def test_a_label_map_has_every_pixel_s_label_and_the_smallest_object_on_top():
    large, small = disk(40, 45, 16), disk(44, 45, 5)
    for order in ((0, 1), (1, 0)):
        masks, labels = np.stack([large, small])[list(order)], [(3, 7)[i] for i in order]
        ids = weak_masks.label_map(masks, labels)
        assert ids.mode == "L"
        assert np.array_equal(np.asarray(ids), np.where(small, 7, np.where(large, 3, 0)))
    assert weak_masks.label_map(masks, [2, 300]).mode == "I;16"
    assert not np.asarray(weak_masks.label_map(np.zeros((0, 4, 5), bool), [])).any()


def test_codes_are_those_of_each_object():
    codes = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    masks = np.stack([disk(40, 45, 16), disk(44, 45, 5)])
    for code, mask in zip(weak_masks.codes(masks), masks, strict=True):
        assert np.array_equal(codes.decode(code), mask)
