import numpy as np
from PIL import Image

from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.data.class_names import ADE20K
from stay_diffusion.sampling.preview import (
    cell_side,
    colour_of,
    contact_sheet,
    draw_boxes,
    draw_layout,
    draw_map,
    fit,
    legend,
)


def drawn_colours(image) -> set:
    return {colour for _, colour in image.getcolors(1 << 20)}


def test_every_class_of_a_large_vocabulary_has_a_colour_of_its_own():
    assert len({colour_of(name, ADE20K) for name in ADE20K}) == len(ADE20K)


def test_a_map_has_the_colours_of_its_legend():
    labels = np.array([[1, 2], [3, 0]])
    colours = legend(ADE20K[:3], ADE20K)
    assert drawn_colours(draw_map(labels, ADE20K, 8)) == {*colours.values(), (0, 0, 0)}


def test_a_legend_takes_as_many_lines_as_its_names_need():
    cell = Image.new("RGB", (64, 64))
    few, many = (contact_sheet([[cell]], ["x"], legend(ADE20K[:n], ADE20K)) for n in (2, 60))
    assert few.width == many.width and many.height > few.height + 3 * 14
    assert all(colour_of(name, ADE20K) in drawn_colours(many) for name in ADE20K[:60])


def test_names_with_accents_are_drawn_without_them():
    cell = Image.new("RGB", (64, 64))
    with_accents, without = (contact_sheet([[cell]], [text], {text: (1, 2, 3)}) for text in ("Rißé", "Risse"))
    assert with_accents.tobytes() == without.tobytes()


def test_pictures_of_any_shape_fit_a_cell_and_keep_their_proportions():
    sizes = {size: fit(Image.new("RGB", size), 256).size for size in ((4000, 3000), (30, 600), (64, 64), (64, 32))}
    assert list(sizes.values()) == [(256, 192), (13, 256), (256, 256), (256, 128)]


def test_small_pictures_are_enlarged_by_whole_multiples_and_large_ones_shrunk():
    sides = [cell_side([Image.new("L", size)]) for size in ((16, 16), (64, 64), (128, 100), (256, 256), (4096, 3000))]
    assert sides == [192, 192, 128, 256, 256]


def test_boxes_stand_where_they_are_in_a_picture_that_is_not_square():
    grey, colour = (90, 90, 90), colour_of("b", "ab")
    drawn = np.asarray(draw_boxes(Image.new("L", (400, 200), 90), [RelativeBox("b", 0.25, 0.5, 0.75, 1)], "ab", 100))
    rows, columns = np.nonzero((drawn != grey).any(axis=-1))
    assert drawn.shape == (50, 100, 3) and (drawn[rows, columns] == colour).all()
    assert (rows.min(), columns.min(), columns.max()) == (24, 24, 75)  # just outside of 25..75 and below 25


def test_a_layout_is_drawn_at_the_size_of_its_picture():
    drawn = np.asarray(draw_layout([RelativeBox("b", 0.25, 0.5, 0.75, 1)], "ab", (400, 200)))
    rows, columns = np.nonzero(drawn.any(axis=-1))
    assert drawn.shape == (200, 400, 3)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (100, 199, 100, 299)


def test_deep_greys_are_shown_from_their_darkest_to_their_brightest():
    ramp = np.linspace(1000, 4000, 64 * 64).reshape(64, 64)  # what 12 bits in 16 have: nearly black if scaled by 65535
    shown = np.asarray(fit(Image.fromarray(ramp.astype(np.uint16)), 64))
    assert shown.min() == 0 and shown.max() == 255 and abs(shown.mean() - 127.5) < 2
    flat = np.asarray(fit(Image.fromarray(np.full((8, 8), 700, np.uint16)), 8))
    assert len(np.unique(flat)) == 1


def test_every_cell_of_a_sheet_holds_the_largest_picture():
    red, wide, high = (250, 0, 0), Image.new("RGB", (40, 10), (250, 0, 0)), Image.new("RGB", (10, 60), (0, 250, 0))
    sheet = np.asarray(contact_sheet([[wide, high], [high, wide]], ["x", "y"], {}, columns=1))
    found = np.argwhere((sheet == red).all(axis=-1))
    assert len(found) == 2 * 40 * 10  # none is covered by its neighbour
    assert (sheet == (0, 250, 0)).all(axis=-1).sum() == 2 * 10 * 60
