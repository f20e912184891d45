import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from stay_diffusion import config
from stay_diffusion.config import RunConfig, SampleRun, flags
from stay_diffusion.data.datasets import DATASETS
from stay_diffusion.data.exports import EXPORTS
from stay_diffusion.data.samples import MAX_OBJECTS_POLICIES
from stay_diffusion.data.transforms import CROP_POLICIES
from stay_diffusion.diffusion.prediction import X_START_FROM
from stay_diffusion.diffusion.samplers import SAMPLERS
from stay_diffusion.diffusion.schedules import SCHEDULES
from stay_diffusion.diffusion.timestep_sampler import TIMESTEP_SAMPLERS
from stay_diffusion.models.unet import CONDITIONINGS
from stay_diffusion.training.freezing import FREEZES

ROOT = Path(__file__).resolve().parents[2]
FROZEN = json.loads((ROOT / "tests/golden/flags.json").read_text())
SCRIPTS = {"image_train.py": RunConfig, "image_sample.py": SampleRun}
HEAVY = ("torch", "torchvision", "scipy", "lpips", "mpi4py", "tensorboard", "numpy", "PIL")


def fields_of(cls):
    return [f for section in dataclasses.fields(cls) for f in dataclasses.fields(section.default)]


def other_value(f):
    """A value of the option that is not its default."""
    if f.metadata["choices"]:
        if isinstance(f.default, tuple):
            return f.metadata["choices"][1:]
        return next((c for c in f.metadata["choices"] if c != f.default), f.default)
    if isinstance(f.default, bool):
        return not f.default
    return {int: 7, float: 0.125, str: "some text", tuple: ("one", "two words")}[type(f.default)]


def as_typed(value) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def loaded_modules(code: str, tmp_path) -> set[str]:
    shown = f"{code}\nimport sys; print('\\n'.join(sys.modules), file=open('modules.txt', 'w'))"
    subprocess.run([sys.executable, "-c", shown], cwd=tmp_path, check=True, capture_output=True)
    return set((tmp_path / "modules.txt").read_text().split())


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_flags_their_defaults_and_choices_are_the_published_ones(script):
    # Another name, default or choice changes what users' commands mean: then change tests/golden/flags.json too.
    found = {f.name: {"default": f.default, "choices": f.metadata["choices"]} for f in fields_of(SCRIPTS[script])}
    assert json.loads(json.dumps(found)) == FROZEN[script]


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_two_sections_share_an_option_name(script):
    names = [f.name for f in fields_of(SCRIPTS[script])]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("preset", sorted((ROOT / "scripts/configs").glob("*.json")), ids=lambda path: path.stem)
def test_a_shipped_preset_loads_and_sets_what_it_says(preset):
    loaded = flags.flatten(flags.load(preset))
    assert {name: loaded[name] for name in json.loads(preset.read_text())} == json.loads(preset.read_text())


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_option_survives_flag_to_json_to_flag(script, tmp_path):
    cls = SCRIPTS[script]
    wanted = {f.name: other_value(f) for f in fields_of(cls)}
    typed, _, _ = flags.parse(cls, "", [x for name, value in wanted.items() for x in (f"--{name}", as_typed(value))])
    (tmp_path / "config.json").write_text(flags.dump(typed))
    read, _, _ = flags.parse(cls, "", ["--config", str(tmp_path / "config.json")])
    assert flags.flatten(typed) == wanted
    assert read == typed


@pytest.mark.parametrize(
    ("section", "option", "registry"),
    [
        (config.DataConfig, "dataset_mode", DATASETS),
        (config.DataConfig, "crop_policy", CROP_POLICIES),
        (config.DataConfig, "max_objects_policy", MAX_OBJECTS_POLICIES),
        (config.ModelConfig, "conditioning", CONDITIONINGS),
        (config.DiffusionConfig, "noise_schedule", SCHEDULES),
        (config.DiffusionConfig, "prediction", X_START_FROM),
        (config.TrainConfig, "schedule_sampler", TIMESTEP_SAMPLERS),
        (config.TrainConfig, "freeze", FREEZES),
        (config.SampleConfig, "sampler", SAMPLERS),
        (config.SampleConfig, "export", EXPORTS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_choices_of_a_flag_are_what_its_registry_holds(section, option, registry):
    choices = next(f for f in dataclasses.fields(section) if f.name == option).metadata["choices"]
    assert set(choices) == set(registry)


def test_typed_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    (tmp_path / "some.json").write_text('{"lr": 0.5, "batch_size": 3}')
    run, given, _ = flags.parse(RunConfig, "", ["--config", str(tmp_path / "some.json"), "--batch_size", "4"])
    assert (run.train.lr, run.train.batch_size, run.train.seed) == (0.5, 4, 0)
    assert given == {"lr": 0.5, "batch_size": 4}


@pytest.mark.parametrize(("word", "value"), [("True", True), ("false", False), ("1", True), ("no", False)])
def test_a_boolean_is_typed_as_a_word(word, value):
    assert flags.parse(RunConfig, "", ["--random_flip", word])[0].data.random_flip is value


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--batchsize", "4"], "unknown flag --batchsize; did you mean --batch_size?"),
        (["--batch_siz=4"], "unknown flag --batch_siz=4; did you mean --batch_size?"),
        (["--batch", "4"], "unknown flag --batch"),
        (["--batch_size", "many"], "--batch_size: invalid int value: 'many'"),
        (["--random_flip", "maybe"], "--random_flip: expected True or False, not 'maybe'"),
        (["--crop_policy", "wild"], "--crop_policy: invalid choice: 'wild'"),
        (["stray"], "unknown flag stray"),
    ],
)
def test_a_mistyped_flag_is_named_in_one_line(arguments, told, capsys):
    with pytest.raises(SystemExit) as stopped:
        flags.parse(RunConfig, "", arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and told in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("a, b ,c", ("a", "b", "c")),
        ('"Dust, fibres", b', ("Dust, fibres", "b")),
        ('5" pipe', ('5" pipe',)),
        ("a\n,b", ("a", "b")),
        ("", ()),
    ],
)
def test_names_with_commas_are_quoted(typed, names):
    run, _, _ = flags.parse(RunConfig, "", ["--classes", typed])
    assert run.data.classes == names
    assert flags.parse(RunConfig, "", ["--classes", flags.text(names)])[0].data.classes == names


def test_a_word_that_is_no_choice_of_an_option_of_several_is_named_with_the_choices(capsys):
    with pytest.raises(SystemExit) as stopped:
        flags.parse(SampleRun, "", ["--export", "vott,cocoa"])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert "--export: invalid choice: 'cocoa' (choose from vott, coco, voc, yolo)" in error
    with pytest.raises(ValueError, match="export is 'cocoa'; choose one of vott, coco, voc, yolo"):
        flags.unflatten(SampleRun, {"export": ["vott", "cocoa"]})
    assert flags.parse(SampleRun, "", ["--export", "yolo,coco"])[0].sample.export == ("yolo", "coco")


def test_a_blank_argument_is_dropped_with_a_note(capsys):
    run, _, _ = flags.parse(RunConfig, "", ["--lr", "0.5", " ", "--seed", "3", ""])
    assert (run.train.lr, run.train.seed) == (0.5, 3)
    assert "a blank argument was dropped" in capsys.readouterr().err


def test_an_empty_value_after_its_flag_is_that_value(capsys):
    run, given, _ = flags.parse(RunConfig, "", ["--attention_resolutions", "", "--seed", "3"])
    assert run.model.attention_resolutions == "" and given == {"attention_resolutions": "", "seed": 3}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"btach_size": 4}', "unknown option btach_size; did you mean batch_size?"),
        ('{"batch_size": "4"}', "batch_size is '4'; expected int"),
        ('{"batch_size": 4.0}', "batch_size is 4.0; expected int"),
        ('{"batch_size": true}', "batch_size is True; expected int"),
        ('{"random_flip": 1}', "random_flip is 1; expected bool"),
        ('{"ema_rate": 0.9}', "ema_rate is 0.9; expected str"),
        ('{"lr": null}', "lr is None; expected float"),
        ('{"crop_policy": "wild"}', "crop_policy is 'wild'; choose one of resize, center, random, object"),
        ('{"classes": "Spots"}', "classes is 'Spots'; expected a,b,..."),
        ('{"classes": 5}', "classes is 5; expected a,b,..."),
        ('{"classes": ["Spots", 5]}', "classes is ['Spots', 5]; expected a,b,..."),
        ("[1, 2]", "a configuration is one JSON object"),
        ('{"lr": ', "cannot be read as a configuration"),
    ],
)
def test_a_wrong_value_in_a_file_is_named_with_the_file(text, told, tmp_path):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ValueError) as error:
        flags.load(tmp_path / "mine.json")
    assert str(tmp_path / "mine.json") in str(error.value) and told in str(error.value)


def test_a_whole_number_in_a_file_is_good_for_a_float_option(tmp_path):
    (tmp_path / "mine.json").write_text('{"grad_clip": 2}')
    assert flags.load(tmp_path / "mine.json").train.grad_clip == 2.0


def test_training_and_sampling_import_no_package_of_the_evaluations(tmp_path):
    code = "import stay_diffusion.training.train_loop, stay_diffusion.training.validation, stay_diffusion.run.factory"
    code += ", stay_diffusion.sampling.training_preview"
    loaded = loaded_modules(code, tmp_path)
    assert "stay_diffusion.training.train_loop" in loaded
    assert not loaded & {"torchvision", "scipy", "lpips", "torch_fidelity", "tensorboard", "mpi4py"}


def test_a_runs_config_serves_other_scripts_which_leave_out_what_they_do_not_have(tmp_path):
    (tmp_path / "config.json").write_text(flags.dump(RunConfig()))
    run, given, _ = flags.parse(SampleRun, "", ["--config", str(tmp_path / "config.json")])
    assert "lr" not in given and "data_dir" in given and run == SampleRun()
    assert not {"seed", "batch_size", "is_train"} & given.keys()  # training's, which mean something else here


def test_a_config_of_a_scripts_own_options_is_taken_whole(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 3, "num_samples": 2}')
    run, _, _ = flags.parse(SampleRun, "", ["--config", str(tmp_path / "config.json")])
    assert (run.sample.seed, run.sample.num_samples) == (3, 2)
    (tmp_path / "config.json").write_text('{"lrr": 1}')
    with pytest.raises(ValueError, match="unknown option lrr"):
        flags.parse(SampleRun, "", ["--config", str(tmp_path / "config.json")])


@pytest.mark.parametrize(("value", "warnings"), [(0.001, 0), (0.5, 1)])
def test_a_retired_option_of_an_older_run_is_left_out_with_a_warning_where_it_was_set(
    value, warnings, tmp_path, caplog
):
    (tmp_path / "config.json").write_text(json.dumps({"fp16_scale_growth": value, "lr": 0.5}))
    assert flags.load(tmp_path / "config.json") == RunConfig(train=config.TrainConfig(lr=0.5))
    assert [record.message for record in caplog.records] == [
        f"{tmp_path / 'config.json'}: the option fp16_scale_growth was retired; it is 0.001 now"
    ] * warnings


def test_help_lists_a_sections_own_options_first_and_the_traditions_last(capsys):
    with pytest.raises(SystemExit):
        flags.parse(SampleRun, "", ["--help"])
    text = capsys.readouterr().out
    places = [text.index(f"\n{word}") for word in ("sample:", "data:", "model:", "diffusion:", "compatibility:")]
    assert places == sorted(places)
    assert places[0] < text.index("  --model_path") < text.index("  --device") < places[1]
    assert places[-1] < text.index("  --use_ddim") < text.index("  --timestep_respacing")
