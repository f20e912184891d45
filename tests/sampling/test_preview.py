import numpy as np
from PIL import Image

from stay_diffusion.data.class_names import ADE20K
from stay_diffusion.sampling.preview import colour_of, contact_sheet, draw_map, legend


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
