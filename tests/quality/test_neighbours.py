"""The nearest training object: exact and changed copies are found where they are, others are not alike."""

import pytest
import torch

from stay_diffusion.quality import neighbours
from stay_diffusion.quality.classifier import CropClassifier
from stay_diffusion.quality.crops import RIM, SIDE, without_rim
from stay_diffusion.quality.neighbours import References, nearest, normalised

P = SIDE + 2 * RIM
WHOLE = (0, 0, P, P)


def blobs(num: int, channels: int = 1, seed: int = 0, scale: int = 1) -> torch.Tensor:
    """Smooth random crops with rims, (num, channels, P, P) uint8; `scale` times as fine."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num, channels, 10, 10, generator=rng)
    fine = torch.nn.functional.interpolate(coarse, size=(scale * P, scale * P), mode="bicubic")
    return (128 + 45 * fine).clamp(0, 255).byte()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CropClassifier(1, 3).eval()


@pytest.fixture(scope="module")
def known():
    return blobs(40)


@pytest.fixture(scope="module")
def references(known, model):
    return References.of(without_rim(known), model)


def test_an_exact_copy_has_similarity_1_and_its_own_place(known, references, model):
    for place in (0, 17, 39):
        found = nearest(known[place], WHOLE, references, model, flip=False)
        assert found.place == place and found.similarity == pytest.approx(1, abs=1e-5)


def test_other_crops_are_not_alike(references, model):
    found = [nearest(crop, WHOLE, references, model, flip=True).similarity for crop in blobs(10, seed=1)]
    assert max(found) < 0.7


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -1), (-1, 1)])
def test_a_copy_moved_by_a_pixel_is_found_as_alike_as_an_exact_one(known, references, model, down, right):
    moved = known[5].roll((down, right), (1, 2))
    found = nearest(moved, WHOLE, references, model, flip=False)
    assert found.place == 5 and found.similarity == pytest.approx(1, abs=1e-4)


def test_a_copy_moved_by_half_a_pixel_is_found(references, model):
    fine = blobs(40, scale=2)[5]  # what was averaged over two pixels each way, and moved by one of them
    moved = fine.roll((1, 1), (1, 2)).float().unflatten(1, (P, 2)).unflatten(3, (P, 2)).mean((2, 4))
    found = nearest(moved.byte(), WHOLE, references, model, flip=False)
    assert found.place == 5 and found.similarity > 0.97


def test_a_copy_of_another_brightness_and_contrast_is_found(known, references, model):
    changed = (0.7 * known[5].float() + 40).byte()
    found = nearest(changed, WHOLE, references, model, flip=False)
    assert found.place == 5 and found.similarity > 0.9


def test_a_mirrored_copy_is_found_only_where_mirroring_is_asked_for(known, references, model):
    mirrored = known[5].flip(-1)
    found = nearest(mirrored, WHOLE, references, model, flip=True)
    assert found.place == 5 and found.similarity == pytest.approx(1, abs=1e-5)
    assert nearest(mirrored, WHOLE, references, model, flip=False).similarity < 0.7


@pytest.mark.parametrize("flip", [False, True])
def test_a_copy_whose_picture_ends_earlier_is_still_exact(known, references, model, flip):
    top, left, bottom, right = inside = (6, 0, P, 30)
    ended = known[5][:, torch.arange(P).clamp(top, bottom - 1)][..., torch.arange(P).clamp(left, right - 1)]
    if flip:
        ended, inside = ended.flip(-1), (top, P - right, bottom, P - left)
    found = nearest(ended, inside, references, model, flip)
    assert found.place == 5 and found.similarity == pytest.approx(1, abs=1e-5)
    assert nearest(ended, WHOLE, references, model, flip).similarity < 0.95


def test_an_exact_copy_of_an_object_at_its_pictures_edge_is_exact(known, references, model):
    """The reference too repeats an edge, in pixels that `inside` only counts whole."""
    for inside in ((0, 11, P, P), (9, 0, 31, P)):
        found = nearest(known[5], inside, references, model, flip=False)
        assert found.place == 5 and found.similarity == pytest.approx(1, abs=1e-5)


def test_it_does_not_matter_in_how_many_parts_references_are_searched(known, references, model, monkeypatch):
    crops = blobs(3, seed=1)
    before = [nearest(crop, WHOLE, references, model, flip=True) for crop in crops]
    monkeypatch.setattr(neighbours, "AT_A_TIME", 7)
    again = References.of(without_rim(known), model)
    after = [nearest(crop, WHOLE, again, model, flip=True) for crop in crops]
    for one, other in zip(before, after, strict=True):
        assert one.place == other.place and one.similarity == pytest.approx(other.similarity, abs=1e-5)


def test_a_copy_among_many_more_than_candidates_is_found(model):
    many = blobs(300, seed=2)
    references = References.of(without_rim(many), model)
    noisy = (many[211].float() + 12 * torch.randn(1, P, P, generator=torch.Generator().manual_seed(0))).clamp(0, 255)
    assert nearest(noisy.byte(), WHOLE, references, model, flip=False).place == 211


def test_crops_without_contrast_are_alike_nothing_by_their_pixels():
    flat = normalised(torch.full((2, 1, SIDE, SIDE), 77, dtype=torch.uint8))
    assert torch.equal(flat, torch.zeros(2, SIDE * SIDE))


def test_colours_are_searched_too():
    torch.manual_seed(0)
    model, known = CropClassifier(3, 3).eval(), blobs(10, channels=3)
    found = nearest(known[3], WHOLE, References.of(without_rim(known), model), model, flip=False)
    assert found.place == 3 and found.similarity == pytest.approx(1, abs=1e-5)
