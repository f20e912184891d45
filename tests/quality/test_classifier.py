"""The classifier of crops: what it learns, and that nothing but its arguments decides it."""

import pytest
import torch

from stay_diffusion.quality import classifier
from stay_diffusion.quality.classifier import accuracy, features, probabilities, train_classifier
from stay_diffusion.quality.crops import RIM, SIDE, without_rim

P = SIDE + 2 * RIM


def stripes(num: int, channels: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops with rims of lying (0), standing (1) and no (2) stripes in noise."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % 3
    crops = torch.randint(90, 110, (num, channels, P, P), generator=rng, dtype=torch.uint8)
    for crop, label in zip(crops, labels.tolist(), strict=True):
        if label == 0:
            crop[:, ::6] = 220
        elif label == 1:
            crop[:, :, ::6] = 220
    return crops, labels


@pytest.fixture(scope="module")
def learnt():
    return train_classifier(*stripes(60), num_classes=3, seed=0, steps=25)


def test_it_tells_unseen_crops_apart(learnt):
    assert accuracy(learnt, *stripes(30, seed=1)) == 1


def test_probabilities_sum_to_one_and_features_are_a_row_for_each_crop(learnt):
    crops = without_rim(stripes(7)[0])
    torch.testing.assert_close(probabilities(learnt, crops).sum(1), torch.ones(7))
    assert features(learnt, crops).shape == (7, classifier.FEATURES)
    torch.testing.assert_close(learnt.head(features(learnt, crops)).softmax(1), probabilities(learnt, crops))


def test_a_crop_is_seen_alike_whatever_else_is_seen(learnt, monkeypatch):
    crops = without_rim(stripes(9)[0])
    together = probabilities(learnt, crops)
    alone = torch.cat([probabilities(learnt, crop[None]) for crop in crops])
    monkeypatch.setattr(classifier, "AT_A_TIME", 4)
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(together, probabilities(learnt, crops), atol=1e-6, rtol=0)


def test_the_same_seed_gives_the_same_weights_and_leaves_other_draws_alone():
    def trained(seed: int) -> torch.Tensor:
        model = train_classifier(*stripes(12, channels=3), num_classes=3, seed=seed, steps=2)
        return torch.cat([weights.flatten() for weights in model.state_dict().values()])

    torch.manual_seed(5)
    first, drawn = trained(1), torch.rand(1)
    torch.manual_seed(6)
    second = trained(1)
    torch.manual_seed(5)
    assert torch.equal(first, second) and torch.equal(drawn, torch.rand(1))
    assert not torch.equal(first, trained(2))


def test_a_rare_class_is_learnt_as_well_as_the_others():
    crops, labels = stripes(63)
    kept = torch.cat([torch.where(labels != 1)[0].repeat(10), torch.where(labels == 1)[0][:1]])
    model = train_classifier(crops[kept], labels[kept], num_classes=3, seed=0, steps=25)
    assert accuracy(model, *stripes(30, seed=1)) > 0.9


def test_a_class_without_an_example_is_improbable():
    crops, labels = stripes(60)
    kept = labels != 2
    model = train_classifier(crops[kept], labels[kept], num_classes=3, seed=0, steps=25)
    assert probabilities(model, without_rim(crops[kept]))[:, 2].max() < 0.1


@pytest.mark.parametrize("flip", [False, True])
def test_crops_are_mirrored_only_if_they_may_be(flip):
    crops = torch.zeros(64, 1, P, P, dtype=torch.uint8)
    crops[..., P // 2 :] = 200
    moved = classifier._moved(crops, flip, torch.Generator().manual_seed(0))
    mirrored = moved[..., 0].mean((1, 2)) > moved[..., -1].mean((1, 2))
    assert moved.shape == (64, 1, SIDE, SIDE)
    assert (10 < mirrored.sum() < 54) if flip else not mirrored.any()


def test_crops_are_moved_and_zoomed_by_little():
    """A square of 16 pixels in the middle stays one of 13 to 19, its middle within three pixels of where it was."""
    crops = torch.zeros(200, 1, P, P, dtype=torch.uint8)
    crops[..., P // 2 - 8 : P // 2 + 8, P // 2 - 8 : P // 2 + 8] = 255
    moved = classifier._moved(crops, False, torch.Generator().manual_seed(0))[:, 0] / 255
    sides = moved.sum(1).amax(1)
    assert 13 < sides.min() < 15 and 17 < sides.max() < 19
    where = (moved.sum(1) * torch.arange(SIDE)).sum(1) / moved.sum((1, 2)) - (SIDE - 1) / 2
    assert 1.5 < where.abs().max() < 3
