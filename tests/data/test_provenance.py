import json

import pytest
from PIL import Image

from stay_diffusion.data.provenance import read_provenance, text_chunks

ENTRY = {
    "index": 3,
    "stem": "löcher 3",
    "layout": {"product": None, "objects": [{"label": "Löcher", "box": [0.1, 0.2, 0.3, 1.1]}]},
    "source": "/home/someone/data/val/part 7.png",
    "source_image": "/home/someone/good/part 9.png",
    "checkpoint": "/home/someone/run/ema_0.9999.pt",
    "checkpoint_sha256": "ab" * 32,
    "seed": 2**63 - 1,
    "s": 1.5,
    "masks": [{"size": [8, 8], "counts": "a" * 1000}],
    "quality": {"copy": {"file": "/home/someone/data/train/part 1.png"}},
}


@pytest.fixture
def picture(tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "one.png", pnginfo=text_chunks(ENTRY))
    return tmp_path / "one.png"


def test_a_picture_says_how_it_was_made(picture):
    told = read_provenance(picture)
    same = ENTRY.keys() - {"source", "source_image", "checkpoint", "masks", "quality"}
    assert {key: told[key] for key in same} == {key: ENTRY[key] for key in same}


def test_a_picture_does_not_say_where_files_lay(picture):
    told = read_provenance(picture)
    assert (told["source"], told["source_image"], told["checkpoint"]) == ("part 7.png", "part 9.png", "ema_0.9999.pt")
    assert b"someone" not in picture.read_bytes()
    assert ENTRY.keys() - told.keys() == {"masks", "quality"}


def test_others_can_read_it_as_text(picture):
    with Image.open(picture) as image:
        assert json.loads(image.text["stay_diffusion"])["s"] == 1.5
        assert image.text["Software"] == "stay_diffusion" and "diffusion model" in image.text["Description"]


def test_the_same_line_gives_the_same_bytes(picture, tmp_path):
    Image.new("L", (8, 8), 7).save(tmp_path / "two.png", pnginfo=text_chunks(json.loads(json.dumps(ENTRY))))
    assert (tmp_path / "two.png").read_bytes() == picture.read_bytes()


def test_a_photograph_says_nothing(tmp_path):
    for name in ("photo.png", "photo.jpg", "photo.tif"):
        Image.new("L", (8, 8)).save(tmp_path / name)
        assert read_provenance(tmp_path / name) is None


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG torn")
    with pytest.raises(ValueError, match=r"torn\.png: cannot be read"):
        read_provenance(tmp_path / "torn.png")
