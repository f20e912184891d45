import copy
import logging
from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from stay_diffusion.config import SampleConfig
from stay_diffusion.data.annotations import RelativeBox, Vocabulary
from stay_diffusion.data.images import to_tensor
from stay_diffusion.diffusion.gaussian_diffusion import respace
from stay_diffusion.layouts.items import LayoutItem
from stay_diffusion.models import compilation
from stay_diffusion.models.compilation import Compiled, padded, padded_number
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder
from stay_diffusion.run.logger import Logger
from stay_diffusion.sampling.generate import TrainedModel, image_generators, make_images
from stay_diffusion.training.noise_batch import noise_batch
from stay_diffusion.training.state import TrainingState
from stay_diffusion.training.train_loop import train_step

CPU = torch.device("cpu")
VOCABULARY = Vocabulary(("spot", "line"), ("A",))


@pytest.fixture(autouse=True)
def counted(monkeypatch):
    """Graphs are captured as for every compiler, but run by torch itself: no minutes of C++."""
    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    monkeypatch.setenv("OPENAI_LOG_FORMAT", "csv")
    yield counters
    torch._dynamo.reset()


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def network_of(config):
    torch.manual_seed(0)
    model = factory.build_model(config)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def passed(network, model, config, num_objects, precision=None):
    """Output, and gradients by name, of a pass over noise."""
    x, layout = noise_batch(config, 2, num_objects)
    model.zero_grad()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        output = network(x, torch.tensor([1, 30]), layout=layout)
    output.float().square().mean().backward()
    return output.detach(), {name: each.grad.clone() for name, each in model.named_parameters()}


def as_plain(config, precision=None, num_objects=(3, 2)):
    """Whether compiled passes over layouts of these numbers agree with plain ones of the padded layouts."""
    model = network_of(config)
    network = Compiled(model)
    for number in num_objects:
        output, gradients = passed(network, model, config, number, precision)
        expected, wanted = passed(lambda x, t, layout: model(x, t, padded(layout)), model, config, number, precision)
        tolerance = {"rtol": 2e-2, "atol": 2e-2} if precision else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(output, expected, **tolerance)
        norm = torch.stack([each.norm() for each in wanted.values()]).norm()
        apart = torch.stack([(gradients[name] - wanted[name]).norm() for name in wanted]).norm()
        assert norm > 0 and apart < (2e-2 if precision else 1e-5) * norm
    assert network.is_compiled


def test_a_compiled_pass_and_its_gradients_are_the_plain_ones_in_one_graph_for_each_bucket(tiny_run):
    as_plain(tiny_run(), num_objects=(3, 20, 2))
    assert graphs() == 2  # layouts of up to 14 objects, and of up to 30
    assert not counters["graph_break"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "precision"),
    [
        ({"use_checkpoint": True, "dropout": 0.3}, None),
        ({"z_mode": "prior"}, "bf16"),
        ({"mask_refine": True}, None),
        ({"conditioning": "isla", "resblock_updown": True, "channel_mult": "1,1"}, None),
    ],
    ids=str,
)
def test_a_compiled_backward_pass_gives_the_gradients_of_the_plain_one(tiny_run, monkeypatch, model, precision):
    monkeypatch.setattr(compilation, "BACKEND", "aot_eager")
    as_plain(tiny_run(model=model), precision)
    assert graphs() == 1 and not counters["graph_break"]


@pytest.mark.slow
def test_what_a_compiler_of_this_machine_makes_is_the_plain_pass_too(tiny_run, monkeypatch):
    monkeypatch.setattr(compilation, "BACKEND", "inductor")
    as_plain(tiny_run(model={"dropout": 0.3}), num_objects=(3, 2))


def test_layouts_are_padded_to_what_the_norms_products_hold_anyway(tiny_run):
    config = tiny_run(model={"z_mode": "prior"})
    sizes = {number: padded(noise_batch(config, 1, number)[1]).num_objects for number in (0, 14, 15, 30, 31, 63, 127)}
    assert sizes == {0: 14, 14: 14, 15: 30, 30: 30, 31: 62, 63: 126, 127: 254}
    for number in (14, 30, 62):
        conditioning = network_of(config).condition(noise_batch(config, 1, number)[1], (8, 8))
        assert conditioning.rows((8, 8), torch.float32).shape[1] == number + 2


def test_padding_a_layout_changes_nothing_but_rounding(tiny_run):
    config = tiny_run()
    model, (x, layout) = network_of(config), noise_batch(config, 2, 3)
    t = torch.tensor([1, 30])
    torch.testing.assert_close(model(x, t, padded(layout)), model(x, t, layout), rtol=1e-4, atol=1e-5)


def stepped(config, network_changes=lambda state: None, num_steps=2):
    state = TrainingState(config, network_of(config), factory.build_diffusion(config.diffusion), CPU)
    network_changes(state)
    for number in range(num_steps):
        train_step(state, config, *noise_batch(config, 3, 2 + number), Logger(None))
        state.step, state.samples = state.step + 1, state.samples + 3
    return state


def test_training_compiled_is_training(tiny_run):
    model = {"conditioning": "none"}
    plain, compiled = (stepped(tiny_run(compile=on, batch_size=3, microbatch=2, model=model)) for on in (False, True))
    assert isinstance(compiled.network, Compiled) and graphs() == 2  # pieces of two pictures and of one
    torch.testing.assert_close(dict(compiled.model.state_dict()), dict(plain.model.state_dict()), rtol=1e-3, atol=1e-4)
    config = tiny_run(compile=True)
    one, other = (state.contents(config) for state in (plain, compiled))
    assert list(one["model"]) == list(other["model"]) and list(one["ema_0.9"]) == list(other["ema_0.9"])
    assert not isinstance(compiled.emas[0].model, Compiled)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_run_continues_bit_for_bit(tiny_run, monkeypatch, backend):
    monkeypatch.setattr(compilation, "BACKEND", backend)
    config = tiny_run(compile=True, model={"dropout": 0.3, "z_mode": "prior"})
    whole = stepped(config, num_steps=2)
    half = stepped(config, num_steps=1)
    saved = copy.deepcopy(half.contents(config))
    torch._dynamo.reset()
    rest = TrainingState(config, network_of(config), factory.build_diffusion(config.diffusion), CPU)
    rest.model.load_state_dict(saved["model"])
    rest.optimizer.load_state_dict(saved["opt"])
    rest.step, rest.samples = saved["state"]["step"], saved["state"]["samples"]
    train_step(rest, config, *noise_batch(config, 3, 3), Logger(None))
    torch.testing.assert_close(dict(rest.model.state_dict()), dict(whole.model.state_dict()), rtol=0, atol=0)


def broken_forward(graph, inputs):
    raise RuntimeError("no compiler\nhere")


def broken_backward(graph, inputs):
    from torch._dynamo.backends.common import aot_autograd

    return aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=broken_forward)(graph, inputs)


@pytest.mark.parametrize("backend", [broken_forward, broken_backward])
def test_where_there_is_no_compiler_one_line_says_so_and_training_goes_on_as_without(
    tiny_run, monkeypatch, caplog, backend
):
    model = {"dropout": 0.3, "conditioning": "none"}
    plain = stepped(tiny_run(model=model))
    monkeypatch.setattr(compilation, "BACKEND", backend)
    with caplog.at_level(logging.WARNING, "stay_diffusion"):
        state = stepped(tiny_run(compile=True, model=model))
    (line,) = [record.getMessage() for record in caplog.records if record.name == "stay_diffusion"]
    assert line.startswith("--compile True: not here") and "\n" not in line
    assert not state.network.is_compiled
    torch.testing.assert_close(dict(state.model.state_dict()), dict(plain.model.state_dict()), rtol=1e-3, atol=1e-4)


def test_a_platform_that_torch_does_not_compile_on_is_no_error(tiny_run, monkeypatch, caplog):
    def compile(*_, **__):
        raise RuntimeError("torch.compile is not supported on this platform")

    monkeypatch.setattr(torch, "compile", compile)
    model, (x, layout) = network_of(tiny_run()), noise_batch(tiny_run(), 1, 2)
    network = Compiled(model)
    torch.testing.assert_close(network(x, torch.tensor([1]), layout), model(x, torch.tensor([1]), padded(layout)))
    assert "not supported on this platform" in caplog.text


def test_errors_of_the_network_itself_are_not_taken_for_a_missing_compiler(tiny_run):
    config = tiny_run(model={"channel_mult": "1,1"})
    x, layout = noise_batch(config, 1, 2)
    network = Compiled(network_of(config))
    with pytest.raises(ValueError, match="multiples of 2"):
        network(x[..., :7], torch.tensor([1]), layout)


def items_of(*counts):
    box = RelativeBox("spot", 0.2, 0.2, 0.7, 0.6)
    return [LayoutItem(f"{i}", "A", (box,) * count, "test") for i, count in enumerate(counts)]


@pytest.mark.parametrize("s", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_sampling_compiled_gives_the_same_images_from_few_graphs(tiny_run, s):
    config = tiny_run(model={"z_mode": "prior"})
    model, diffusion = network_of(config).eval(), respace(factory.build_diffusion(config.diffusion), "3")
    items, made = items_of(1, 0, 3, 2, 5, 1), {}
    for on in (False, True):
        trained = TrainedModel(model, diffusion, (1, 8, 8), SampleConfig(compile=on, s=s, batch_size=4))
        make = partial(make_images, trained, items, VOCABULARY, 0, False)
        made[on] = [one.image for indices in (range(4), [4, 5], [1, 2, 3]) for one in make(indices, 0)]
    assert len(made[True]) == 9 and graphs() == 2  # of four pictures and of two; all steps alike
    pictures = [[to_tensor(image, 1) for image in made[on]] for on in (True, False)]
    torch.testing.assert_close(*pictures, rtol=0, atol=0.01)


def test_insertion_compiled_fills_the_same_from_few_graphs(tiny_run):
    config = tiny_run()
    model, diffusion = network_of(config).eval(), respace(factory.build_diffusion(config.diffusion), "3")
    filled = {}
    for on in (False, True):
        sample = SampleConfig(compile=on, num_resamples=2, batch_size=4)
        fill = TrainedModel(model, diffusion, (1, 8, 8), sample).fill
        for number in (4, 3):
            known, layout = noise_batch(config, number, 2)
            keep = torch.zeros(number, 1, 8, 8, dtype=torch.bool)
            filled[on, number] = fill(layout, known, keep, image_generators(0, range(number)))
    assert graphs() == 1
    for number in (4, 3):
        torch.testing.assert_close(filled[True, number], filled[False, number], rtol=0, atol=1e-3)


def test_numbers_of_pictures_recur_and_are_no_larger_than_a_batch():
    assert [padded_number(number, 12) for number in (1, 2, 3, 5, 8, 9, 12)] == [1, 2, 4, 8, 8, 12, 12]


@pytest.mark.slow
def test_a_compiled_run_of_the_script_is_sampled_from_without(run_script, tiny_data, tiny_network, tmp_path):
    prelude = "from stay_diffusion import compilation; compilation.BACKEND = 'eager'"
    words = ["--data_dir", tiny_data, "--logdir", tmp_path / "run", *tiny_network, "--max_steps", 2, "--batch_size", 2]
    words += [
        "--conditioning",
        "none",
        "--val_interval",
        1,
        "--preview_interval",
        2,
        "--preview_images",
        2,
        "--val_images",
        2,
    ]
    ended = run_script("scripts/image_train.py", *words, "--compile", "True", prelude=prelude)
    assert "finished" in ended.output and "not here" not in ended.output
    assert not [
        name for name in RunFolder(tmp_path / "run").load("model", 2) if "_orig_mod" in name or "model." in name
    ]
    words = ["--model_path", tmp_path / "run/ema_0.9.pt", "--num_samples", 2, "--num_steps", 2]
    ended = run_script("scripts/image_sample.py", *words, "--compile", "True", prelude=prelude)
    assert len(list((tmp_path / "run/samples/samples").glob("*.png"))) == 2 and "not here" not in ended.output
