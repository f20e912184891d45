"""studies/sample_sets.py: which windows its sets are of, and the table."""

from dataclasses import replace

import numpy as np
import pytest
import sample_sets as script
import windows
from PIL import Image

from stay_diffusion.run import factory


@pytest.fixture(scope="module")
def config(tiny_data, tiny_run):
    config = tiny_run(
        data={
            "data_dir": str(tiny_data),
            "classes": (),
            "product_tags": (),
            "crop_policy": "object",
            "min_visible": 0.5,
        },
        model={"image_size": 32},
    )
    return factory.with_vocabulary(config, factory.read_split(config.data, "train")[1])


def test_the_halves_share_no_picture_and_hold_all(config):
    halves = windows.halves(config)
    names = [{record.stem for record in half} for half in halves]
    assert not names[0] & names[1] and len(names[0]) == len(names[1]) == 2
    assert names[0] | names[1] == {record.stem for record in factory.read_split(config.data, "val")[0]}


def test_a_template_is_cut_where_its_picture_is_and_has_its_boxes(config, tmp_path):
    records, _ = windows.halves(config)
    bare = []
    for record in records:
        template = tmp_path / record.path.name.replace("_test", "_temp")
        Image.new("L", (record.width, record.height), 77).save(template)
        bare.append(replace(record, path=script.template_of(tmp_path, record.path)))
    drawn, empty = (list(windows.windows(part, config, 5)) for part in (records, bare))
    assert [item.objects for item, _ in drawn] == [item.objects for item, _ in empty]
    assert sum(len(item.objects) for item, _ in drawn) > 2
    assert all(np.unique(image) == [77] for _, image in empty) and all(np.std(image) > 1 for _, image in drawn)
    assert len({item.stem for item, _ in drawn}) == 5
    first, again = drawn[0], drawn[2]  # the same picture, cut elsewhere
    assert first[0].source == again[0].source and np.asarray(first[1]).tolist() != np.asarray(again[1]).tolist()
    with pytest.raises(ValueError, match=r"has no .*, the defect-free picture of"):
        script.template_of(tmp_path / "nowhere", records[0].path)


def test_a_set_that_is_there_stays(config, tmp_path):
    records, _ = windows.halves(config)
    windows.write_set(tmp_path / "set", records, config, 4)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "set/samples").glob("*.png")}
    windows.write_set(tmp_path / "set", records, config, 4)
    assert len(written) == 4
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "set/samples").glob("*.png")}


def test_the_table_has_a_row_for_each_set_and_a_dash_where_there_is_no_figure():
    figure = {"value": 0.52345, "spread": 0.0123}
    name = "detection score (small_fcos), AP50"
    found = {each: {"figures": {"FD-own": {"value": 1.234, "spread": None}, name: figure}} for each in script.SETS}
    found["generated"] = {"figures": {}}
    rows = [line.strip("|\n ").split(" | ") for line in script.table(found).splitlines()]
    assert len(rows) == 2 + len(script.SETS) and len({len(row) for row in rows}) == 1
    real = dict(zip(rows[0], rows[2], strict=True))
    assert (real["FD-own ↓"], real["AP50 ↑"], real["CAS ↑"]) == ("1.23", "0.523 ± 0.012", "-")
    assert set(rows[3][1:]) == {"-"}
