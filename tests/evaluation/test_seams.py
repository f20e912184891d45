"""Seams of insertions: figures of constructed pictures."""

import numpy as np
import pytest

from stay_diffusion.evaluation import seams as script


def case(change, shift=0.0, outside=0):
    """A noisy picture of 40 x 40 into whose middle `change` is put; `outside` pixels beside it differ too."""
    source = np.random.default_rng(0).integers(60, 120, (40, 40)).astype(np.uint8)
    area = np.zeros((40, 40), dtype=bool)
    area[10:30, 12:28] = True
    result = source.copy()
    result[area] = change(source)[area] + np.uint8(shift)
    result.flat[:outside] += 1
    return result, source, area, 1


def test_what_was_not_changed_has_the_sources_own_steps():
    found = script.measure(iter([case(lambda source: source)]))
    assert found.ratio == 1 and found.changed_outside == 0 and found.step == found.source_step > 0


def test_a_lighter_patch_has_a_seam_by_its_lightness():
    flat = np.full((40, 40), 100, dtype=np.uint8)
    area = case(lambda source: source)[2]
    result = flat.copy()
    result[area] += 51
    found = script.measure(iter([(result, flat, area, 1)]))
    assert found.step == pytest.approx(0.2) and found.source_step == 0 and found.ratio is None and found.drawn_step == 0


def test_every_changed_pixel_outside_is_counted():
    assert script.measure(iter([case(lambda source: source, outside=7)])).changed_outside == 7


def test_sixteen_bits_and_colours_are_measured_alike():
    result, source, area, count = case(lambda source: source[::-1])
    grey = script.measure(iter([(result, source, area, count)]))
    deep = script.measure(iter([(result.astype(np.uint16) * 257, source.astype(np.uint16) * 257, area, count)]))
    colour = script.measure(iter([(np.stack([result] * 3, -1), np.stack([source] * 3, -1), area, count)]))
    assert deep.ratio == pytest.approx(grey.ratio) == colour.ratio


def test_pictures_without_objects_are_nothing_to_measure():
    with pytest.raises(ValueError, match="nothing to measure"):
        script.measure(iter([(*case(lambda source: source)[:3], 0)]))
