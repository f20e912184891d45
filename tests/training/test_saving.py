import threading

import pytest
import torch

from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder, load_tensors
from stay_diffusion.training import saving
from stay_diffusion.training.saving import Saver
from stay_diffusion.training.state import TrainingState


@pytest.fixture
def saver(tiny_run, tmp_path):
    config = tiny_run(keep_checkpoints=0, schedule_sampler="loss-second-moment")
    model = factory.build_model(config)
    state = TrainingState(config, model, factory.build_diffusion(config.diffusion), torch.device("cpu"))
    return Saver(RunFolder(tmp_path), config, state)


def fill(saver, value, step):
    saver.state.step = step
    with torch.no_grad():
        for parameter in saver.state.model.parameters():
            parameter.fill_(value)


def test_what_is_written_is_the_state_at_the_save_whatever_training_does_meanwhile(saver, monkeypatch):
    may_write, real = threading.Event(), saver.folder.save
    monkeypatch.setattr(saver.folder, "save", lambda *arguments: may_write.wait(10) and real(*arguments))
    fill(saver, 1.0, step=1)
    saver.save()
    saver.wait_for_copy()
    fill(saver, 2.0, step=2)
    may_write.set()
    saver.wait()
    assert {tensor.unique().item() for tensor in load_tensors(saver.folder.file("model", 1)).values()} == {1.0}
    assert load_tensors(saver.folder.file("state", 1))["step"] == 1


def test_the_memory_of_a_checkpoint_serves_the_next_once_it_is_written(saver):
    places = []
    for step in (1, 2):
        fill(saver, float(step), step)
        saver.save()
        saver.wait_for_copy()
        places.append([tensor.data_ptr() for tensor in saver.files["model"].values()])
    saver.wait()
    assert places[0] == places[1]
    for step in (1, 2):
        values = load_tensors(saver.folder.file("model", step)).values()
        assert {tensor.unique().item() for tensor in values} == {float(step)}


def test_a_checkpoint_shares_no_memory_with_what_is_trained(saver):
    saver.save()
    saver.wait()
    trained = {tensor.data_ptr() for tensor in saver.state.model.state_dict().values()}
    assert not trained & {tensor.data_ptr() for tensor in saver.files["model"].values()}


def test_a_save_does_not_wait_for_its_copy_and_who_changes_the_state_does(saver, monkeypatch):
    may_copy, real, order = threading.Event(), saving.copy_to_cpu, []

    def copy_to_cpu(value, into=None):
        assert may_copy.wait(10)
        order.append("copy_to_cpu")
        return real(value, into)

    monkeypatch.setattr(saving, "copy_to_cpu", copy_to_cpu)
    saver.save()
    order.append("goes on")
    threading.Timer(0.1, may_copy.set).start()
    saver.wait_for_copy()
    order.append("changes")
    saver.wait()
    assert order == ["goes on", "copy_to_cpu", "changes"]


def test_what_learns_before_the_update_is_copied_at_once(saver, monkeypatch):
    history, real = saver.state.timestep_sampler.history, saving.copy_to_cpu
    may_copy = threading.Event()
    monkeypatch.setattr(saving, "copy_to_cpu", lambda *args, **kwargs: may_copy.wait(10) and real(*args, **kwargs))
    history.fill_(1.0)
    saver.save()
    history.fill_(2.0)
    may_copy.set()
    saver.wait()
    assert (load_tensors(saver.folder.file("state", 0))["timestep_sampler"]["history"] == 1).all()


@pytest.mark.parametrize("failing", ["copy_to_cpu", "save"])
def test_whatever_fails_beside_it_training_does_not_wait_for_ever(saver, monkeypatch, failing):
    def no_memory(*_, **__):
        raise MemoryError("no memory")

    monkeypatch.setattr(*((saving, "copy_to_cpu") if failing == "copy_to_cpu" else (saver.folder, "save")), no_memory)
    saver.save()
    saver.wait_for_copy()
    with pytest.raises(MemoryError, match="no memory"):
        saver.wait()


def test_what_writing_raises_is_raised_by_the_next_wait_and_only_there(saver, monkeypatch):
    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(saver.folder, "save", full)
    saver.save()
    with pytest.raises(OSError, match="the disk is full"):
        saver.wait()
    saver.wait()
