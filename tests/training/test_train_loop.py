import csv
import itertools
import os
import signal
import time
from dataclasses import replace

import pytest
import torch

from stay_diffusion.config import TrainConfig
from stay_diffusion.data.layout import Layout
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder, load_tensors, save_tensors
from stay_diffusion.run.logger import Logger
from stay_diffusion.training import saving
from stay_diffusion.training.best import Best
from stay_diffusion.training.ema import Ema
from stay_diffusion.training.state import TrainingState, copy_to_cpu
from stay_diffusion.training.train_loop import Periodic, catch_signals, learning_rate, train, train_step
from stay_diffusion.training.validation import Validation

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick_logs(monkeypatch):
    monkeypatch.setenv("OPENAI_LOG_FORMAT", "csv")


@pytest.fixture
def new_state(tiny_run):
    """new_state(**training options) -> (config, state), the same weights every time."""

    def build(conditioning="none", z_mode="off", **options):
        config = tiny_run(model={"conditioning": conditioning, "z_mode": z_mode}, **options)
        torch.manual_seed(0)
        model = factory.build_model(config)
        for parameter in model.out.parameters():  # zero at first: then nothing before it has a gradient
            torch.nn.init.normal_(parameter, std=0.1)
        return config, TrainingState(config, model, factory.build_diffusion(config.diffusion), CPU)

    return build


def batch(size=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.tensor([[[0.1, 0.1, 0.6, 0.7], [0.5, 0.2, 0.9, 0.8]]]).repeat(size, 1, 1)
    labels = torch.tensor([[1, 2]]).repeat(size, 1)
    layout = Layout(boxes, labels, labels > 0, torch.ones(size, dtype=torch.long))
    return torch.rand(size, 1, 8, 8, generator=generator) * 2 - 1, layout


def broken_batch():
    images, layout = batch()
    return images.fill_(float("nan")), layout


def weights_of(state):
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


def step(config, state, tmp_path, images_and_layout=None):
    logger = Logger(tmp_path)
    torch.manual_seed(5)
    finite = train_step(state, config, *(images_and_layout or batch()), logger)
    return finite, logger


def rows(folder):
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


# One step


def test_a_batch_in_pieces_has_the_gradient_of_the_whole(new_state, tmp_path):
    gradients = []
    for microbatch in (-1, 2, 3):
        config, state = new_state("isla_bg", batch_size=4, microbatch=microbatch, drop_rate=0.5, grad_clip=0.0)
        step(config, state, tmp_path)
        gradients.append([p.grad for p in state.model.parameters()])
    assert max(g.abs().max() for g in gradients[0]) > 1e-3
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradients[2], gradients[0], rtol=1e-4, atol=1e-6)


def test_a_step_without_a_finite_gradient_changes_no_weight_and_is_counted(new_state, tmp_path):
    config, state = new_state()
    step(config, state, tmp_path)
    before, moments = weights_of(state), [s["exp_avg"].clone() for s in state.optimizer.state.values()]
    finite, logger = step(config, state, tmp_path, broken_batch())
    assert not finite and logger.dump(1)["bad_steps"] == 1
    torch.testing.assert_close(weights_of(state), before, rtol=0, atol=0)
    torch.testing.assert_close([s["exp_avg"] for s in state.optimizer.state.values()], moments, rtol=0, atol=0)


def test_a_good_step_changes_the_weights_and_is_not_counted(new_state, tmp_path):
    config, state = new_state()
    before = weights_of(state)
    finite, logger = step(config, state, tmp_path)
    assert finite and logger.dump(1)["bad_steps"] == 0
    assert all((before[name] != tensor).any() for name, tensor in weights_of(state).items() if name.startswith("out."))


def test_nothing_of_a_checkpoint_but_what_is_copied_at_once_changes_before_the_update(new_state, tmp_path):
    config, state = new_state("isla_bg", schedule_sampler="loss-second-moment", microbatch=2)
    step(config, state, tmp_path)  # then there are moments
    before, seen = copy_to_cpu(state.contents(config)), []
    train_step(state, config, *batch(), Logger(tmp_path), lambda: seen.append(copy_to_cpu(state.contents(config))))
    (seen,) = seen
    after = state.contents(config)
    assert set(before) == {"model", "ema_0.9", "opt", "state"}
    for name in ("model", "ema_0.9", "opt"):
        torch.testing.assert_close(seen[name], before[name], rtol=0, atol=0)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=0)


def test_the_gradient_is_clipped_to_its_norm(new_state, tmp_path):
    config, state = new_state(grad_clip=0.01)
    _, logger = step(config, state, tmp_path)
    norm = torch.stack([p.grad.norm() for p in state.model.parameters()]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.01), rtol=1e-3, atol=0)
    assert logger.dump(1)["grad_norm"] > 0.02  # as it was before


def test_without_clipping_the_gradient_is_as_it_comes(new_state, tmp_path):
    config, state = new_state(grad_clip=0.0)
    _, logger = step(config, state, tmp_path)
    norm = torch.stack([p.grad.norm() for p in state.model.parameters()]).norm()
    assert logger.dump(1)["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_the_logged_loss_is_the_mean_over_all_pieces(new_state, tmp_path):
    losses = []
    for microbatch in (-1, 1):
        config, state = new_state(microbatch=microbatch)
        losses.append(step(config, state, tmp_path)[1].dump(1)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


MODELS = [{"conditioning": name} for name in ("none", "isla", "isla_bg", "spade")]
MODELS += [{"class_cond": False}, {"conditioning": "isla_bg", "mask_refine": True, "z_mode": "prior"}]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_every_weight_has_a_gradient_whatever_the_layouts(tiny_run, tmp_path, model):
    # Processes would wait for one another's otherwise, and DistributedDataParallel is told that nothing changes.
    images, layout = batch()
    layout = replace(layout, semantic_map=torch.ones(4, 2, 8, 8, dtype=torch.int16))
    empty = replace(layout, boxes=layout.boxes[:, :0], labels=layout.labels[:, :0], valid=layout.valid[:, :0])
    many = replace(
        layout, **{name: getattr(layout, name).repeat_interleave(9, 1) for name in ("boxes", "labels", "valid")}
    )
    for layouts, drop_rate in ((layout, 0.0), (layout, 1.0), (empty, 0.0), (many, 0.5)):
        config = tiny_run(model=model, drop_rate=drop_rate)
        network = factory.build_model(config)
        state = TrainingState(config, network, factory.build_diffusion(config.diffusion), CPU)
        step(config, state, tmp_path, (images, layouts))
        assert [name for name, p in network.named_parameters() if p.grad is None] == []


# Averages and learning rate


def test_an_average_warms_up_and_then_keeps_its_rate():
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    ema = Ema(model, "0.9")
    torch.nn.init.ones_(model.weight)
    expected = 0.0
    for n in (0, 1, 50, 1000):
        ema.update(model, n)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay)
        assert ema.model.weight.item() == pytest.approx(expected, rel=1e-5)


def test_an_average_is_a_model_of_its_own_in_eval_mode(new_state):
    _, state = new_state()
    assert not state.emas[0].model.training and state.model.training
    assert not any(p.requires_grad for p in state.emas[0].model.parameters())


@pytest.mark.parametrize(("step", "rate"), [(0, 0.2), (25, 0.15), (100, 0.0)])
def test_the_learning_rate_falls_linearly_to_nothing(step, rate):
    assert learning_rate(TrainConfig(lr=0.2, lr_anneal_steps=100), step) == pytest.approx(rate)
    assert learning_rate(TrainConfig(lr=0.2), step) == 0.2


# The loop


def run(config, state, folder, batches=None, periodic=()):
    folder.open()
    torch.manual_seed(7)
    return train(state, config, itertools.repeat(batch()) if batches is None else batches, folder, list(periodic))


def test_training_ends_at_the_last_step_and_saves_it(new_state, tmp_path):
    config, state = new_state(max_steps=3, lr_anneal_steps=10, save_interval=2)
    folder = RunFolder(tmp_path)
    assert run(config, state, folder) == "finished"
    assert folder.steps() == [2, 3]
    assert (state.step, state.samples) == (3, 12)
    assert [(row["step"], row["samples"]) for row in rows(tmp_path)] == [("1", "4"), ("2", "8"), ("3", "12")]
    assert [float(row["lr"]) for row in rows(tmp_path)] == pytest.approx([1e-4, 0.9e-4, 0.8e-4])


def test_what_is_saved_is_flat_tensors_and_loads_safely(new_state, tmp_path):
    config, state = new_state(max_steps=1)
    run(config, state, RunFolder(tmp_path))
    torch.testing.assert_close(load_tensors(tmp_path / "model.pt"), dict(state.model.state_dict()), rtol=0, atol=0)
    torch.testing.assert_close(
        load_tensors(tmp_path / "ema_0.9.pt"), dict(state.emas[0].model.state_dict()), rtol=0, atol=0
    )


def test_a_checkpoint_that_is_copied_late_is_still_that_of_its_step(new_state, tmp_path, monkeypatch):
    def late(value, into=None):
        time.sleep(0.2)  # longer than a step
        return copy_to_cpu(value, into)

    for name in ("at once", "late"):
        config, state = new_state("isla_bg", max_steps=3, save_interval=1, keep_checkpoints=0)
        run(config, state, RunFolder(tmp_path / name))
        monkeypatch.setattr(saving, "copy_to_cpu", late)
    for step in (1, 2, 3):
        for name in ("model", "ema_0.9", "opt"):
            ours, theirs = (RunFolder(tmp_path / each).load(name, step) for each in ("late", "at once"))
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_restored_state_remembers_its_place_and_its_best_loss(new_state, tmp_path):
    config, state = new_state(max_steps=2)
    state.best = Best("val_loss", 0.125, 1)
    run(config, state, RunFolder(tmp_path))
    _, other = new_state()
    other.restore(RunFolder(tmp_path), 2, config)
    assert (other.step, other.samples, other.best) == (2, 8, Best("val_loss", 0.125, 1))


def test_a_checkpoint_of_an_earlier_version_knows_its_best_validation_loss(new_state, tmp_path):
    config, state = new_state(max_steps=1)
    run(config, state, RunFolder(tmp_path))
    file = RunFolder(tmp_path).file("state", 1)
    contents = load_tensors(file)
    del contents["best"]
    save_tensors(file, {**contents, "best_val_loss": 0.25})
    state.restore(RunFolder(tmp_path), 1, config)
    assert state.best.value == 0.25 and not state.best.is_beaten("val_loss", 0.26)


def test_too_many_bad_steps_in_a_row_stop_with_advice_and_change_nothing(new_state, tmp_path):
    config, state = new_state(max_steps=9, max_bad_steps=3, log_interval=1, save_interval=1)
    before = weights_of(state)
    with pytest.raises(FloatingPointError, match="3 steps in a row without a finite gradient, at step 3: lower --lr"):
        run(config, state, RunFolder(tmp_path), itertools.repeat(broken_batch()))
    torch.testing.assert_close(weights_of(state), before, rtol=0, atol=0)


def test_a_good_step_between_bad_ones_starts_the_count_afresh(new_state, tmp_path):
    config, state = new_state(max_steps=6, max_bad_steps=3)
    mixed = itertools.cycle([broken_batch(), broken_batch(), batch()])
    assert run(config, state, RunFolder(tmp_path), mixed) == "finished"
    assert [float(row["bad_steps"]) for row in rows(tmp_path)] == [1, 1, 0, 1, 1, 0]


def test_training_on_probable_steps_learns_their_losses(new_state, tmp_path):
    config, state = new_state(max_steps=3, schedule_sampler="loss-second-moment")
    run(config, state, RunFolder(tmp_path))
    assert state.timestep_sampler.counts.sum() == 12
    assert (state.timestep_sampler.history[:, -1] > 0).sum() == (state.timestep_sampler.counts > 0).sum()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_training_after_the_step_with_everything_saved(new_state, tmp_path, name):
    config, state = new_state(max_steps=9, save_interval=100)
    handler = signal.getsignal(getattr(signal, name))

    def interrupt(state, logger):
        if state.step == 2:
            os.kill(os.getpid(), getattr(signal, name))

    assert run(config, state, RunFolder(tmp_path), periodic=[Periodic(1, interrupt)]) == name
    assert RunFolder(tmp_path).steps()[0] == state.step <= 3
    assert signal.getsignal(getattr(signal, name)) is handler


def test_a_signal_passed_on_by_a_launcher_is_one_and_a_second_one_interrupts(monkeypatch):
    now = iter((0.0, 0.1, 1.0, 5.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with catch_signals() as received:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert received[0] == "SIGTERM"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_is_periodic_happens_at_its_steps_and_at_the_end(new_state, tmp_path):
    config, state = new_state(max_steps=5)
    seen = {"every 2": [], "never": []}
    periodic = [
        Periodic(2, lambda s, _: seen["every 2"].append(s.step)),
        Periodic(0, lambda s, _: seen["never"].append(s)),
    ]
    run(config, state, RunFolder(tmp_path), periodic=periodic)
    assert seen == {"every 2": [2, 4, 5], "never": []}


# Validation


@pytest.fixture
def validation(new_state, tmp_path, request):
    _, state = new_state(**getattr(request, "param", {}))
    batches = [batch(3, seed=2), batch(2, seed=3)]
    return Validation(
        batches, sum(len(images) for images, _ in batches), RunFolder(tmp_path), state.diffusion, seed=0
    ), state


@pytest.mark.parametrize("validation", [{}, {"conditioning": "isla", "z_mode": "prior"}], indirect=True, ids=str)
def test_the_validation_loss_can_be_repeated_and_uses_up_no_random_numbers(validation):
    validate, state = validation
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = validate.loss(state)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert validate.loss(state) == first


def test_the_validation_loss_is_of_the_average_not_of_the_model(validation):
    validate, state = validation
    before = validate.loss(state)
    with torch.no_grad():
        for p in state.model.parameters():
            p.add_(1.0)
    assert validate.loss(state) == before
    with torch.no_grad():
        for p in state.emas[0].model.out.parameters():
            p.add_(1.0)
    assert validate.loss(state) > before


def test_every_validation_image_counts_once_whatever_the_batches(new_state, tmp_path):
    _, state = new_state()
    images, layout = batch(4, seed=2)
    whole = Validation([(images, layout)], len(images), RunFolder(tmp_path), state.diffusion, seed=0)
    pieces = [(images[:3], layout[:3]), (images[3:], layout[3:])]
    parts = Validation(pieces, len(images), RunFolder(tmp_path), state.diffusion, seed=0)
    assert parts.loss(state) == pytest.approx(whole.loss(state), rel=1e-4)


def test_the_best_average_is_saved_only_when_it_is_better(validation, tmp_path):
    validate, state = validation
    best, logger = tmp_path / "ema_0.9_best.pt", Logger(tmp_path)

    def validate_with_output_moved_by(amount):
        with torch.no_grad():
            for p in state.emas[0].model.out.parameters():
                p.add_(amount)
        validate(state, logger)
        return logger.dump(1)["val_loss"], state.best.value, best.read_bytes()

    first, second, third = (validate_with_output_moved_by(amount) for amount in (1.0, 1.0, -1.5))
    assert third[0] < first[0] < second[0]
    assert second[1:] == first[1:] and second[1] == pytest.approx(first[0], rel=1e-4)
    assert third[1] < first[1] and third[2] != first[2]


def test_a_validation_that_keeps_nothing_leaves_the_best_weights_alone(new_state, tmp_path):
    _, state = new_state()
    images, layout = batch(2, seed=2)
    validate = Validation([(images, layout)], 2, RunFolder(tmp_path), state.diffusion, seed=0, keeps_best=False)
    validate(state, Logger(tmp_path))
    assert state.best == Best() and not (tmp_path / "ema_0.9_best.pt").exists()


@pytest.mark.parametrize(
    ("by", "value", "better", "is_beaten"),
    [
        ("val_loss", 0.4, "lower", True),
        ("val_loss", 0.5, "lower", False),
        ("val_loss", 0.6, "lower", False),
        ("val_loss", 0.6, "higher", True),
        ("val_loss", 0.4, "higher", False),
        ("another figure", 0.6, "lower", True),
        ("another figure", float("nan"), "lower", False),
    ],
)
def test_the_best_is_beaten_by_what_is_better_and_by_the_first_of_another_figure(by, value, better, is_beaten):
    assert Best("val_loss", 0.5, 7).is_beaten(by, value, better) is is_beaten


@pytest.mark.parametrize(
    ("options", "kept_by"),
    [
        ({}, "val_loss"),
        ({"eval_interval": 5, "eval_metrics": ("prdc", "kid")}, "prdc"),
        ({"eval_interval": 5, "eval_metrics": ("prdc", "kid"), "best_by": "kid"}, "kid"),
        ({"eval_interval": 5, "best_by": "val_loss"}, "val_loss"),
    ],
)
def test_what_the_best_weights_are_kept_by(options, kept_by):
    assert TrainConfig(**options).kept_by == kept_by


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"best_by": "kid"}, r"--best_by kid: choose from val_loss \(--eval_interval brings those"),
        ({"best_by": "fid", "eval_interval": 5}, "--best_by fid: choose from val_loss, kid$"),
        ({"eval_metrics": (), "eval_interval": 5}, "--eval_metrics: needs at least one"),
    ],
)
def test_what_the_best_weights_cannot_be_kept_by_is_said(options, told):
    with pytest.raises(ValueError, match=told):
        TrainConfig(**options).kept_by  # noqa: B018
