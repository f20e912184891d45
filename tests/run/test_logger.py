import csv
from pathlib import Path

import pytest
import torch

from stay_diffusion.run.logger import Logger, duration


@pytest.fixture(autouse=True)
def without_tensorboard(monkeypatch):
    monkeypatch.setenv("OPENAI_LOG_FORMAT", "stdout,log,csv")


def rows(folder):
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_dump_writes_means_over_all_values_since_the_last_one(tmp_path):
    logger = Logger(tmp_path)
    logger.add("loss", torch.tensor(6.0), 2)
    logger.add("loss", torch.tensor(1.0), 2)
    assert logger.dump(1) == {"step": 1, "loss": 1.75}
    logger.add("loss", torch.tensor(3.0), torch.tensor(1))
    assert logger.dump(2) == {"step": 2, "loss": 3.0}


def test_a_mean_over_nothing_has_no_figure(tmp_path):
    logger = Logger(tmp_path)
    logger.add("loss_q0", torch.tensor(0.0), torch.tensor(0))
    assert logger.dump(1) == {"step": 1}


def test_a_new_key_becomes_a_column_and_keeps_the_earlier_rows(tmp_path):
    logger = Logger(tmp_path)
    logger.set("loss", 0.5)
    logger.dump(1)
    logger.set("loss", 0.25)
    logger.set("val_loss", 0.75)
    logger.dump(2)
    logger.set("loss", 0.125)
    logger.dump(3)
    assert rows(tmp_path) == [
        {"step": "1", "loss": "0.5", "val_loss": ""},
        {"step": "2", "loss": "0.25", "val_loss": "0.75"},
        {"step": "3", "loss": "0.125", "val_loss": ""},
    ]


def test_another_logger_in_the_same_folder_appends(tmp_path):
    for step, key in enumerate(("first", "second"), 1):
        logger = Logger(tmp_path)
        logger.set(key, step)
        logger.line(f"line {step}")
        logger.dump(step)
    assert [(row["step"], row["first"], row["second"]) for row in rows(tmp_path)] == [("1", "1", ""), ("2", "", "2")]
    assert [line.split(" ", 2)[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == ["line 1", "line 2"]


def test_steps_and_counts_stay_whole_numbers(tmp_path):
    logger = Logger(tmp_path)
    logger.set("samples", 12345678)
    logger.dump(1234567)
    assert rows(tmp_path) == [{"step": "1234567", "samples": "12345678"}]


@pytest.mark.parametrize(
    ("formats", "files"),
    [("csv", {"progress.csv"}), ("log", {"log.txt"}), ("stdout", set()), (" log , csv", {"log.txt", "progress.csv"})],
)
def test_only_the_chosen_formats_are_written(tmp_path, monkeypatch, capsys, formats, files):
    monkeypatch.setenv("OPENAI_LOG_FORMAT", formats)
    logger = Logger(tmp_path)
    logger.set("loss", 1)
    logger.line("a line")
    logger.dump(1)
    assert {path.name for path in tmp_path.iterdir()} == files
    assert capsys.readouterr().out == ("a line\n" if "stdout" in formats else "")


def test_an_unknown_format_is_named_with_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_LOG_FORMAT", "csv,json")
    with pytest.raises(
        ValueError, match="OPENAI_LOG_FORMAT csv,json: unknown format json; choose from stdout, log, csv"
    ):
        Logger(tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_told_with_the_file_s_name(tmp_path):
    (tmp_path / "log.txt").symlink_to("/dev/full")
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/log.txt'$"):
        Logger(tmp_path).line("a line")


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.6, "1 min 0 s"), (45, "45 s"), (723, "12 min 3 s"), (19200, "5 h 20 min")]
)
def test_a_duration_reads_like_one(seconds, text):
    assert duration(seconds) == text
