"""Pictures drawn again until they are good enough, the same in every batch and however they are shared."""

from dataclasses import dataclass

import pytest
from PIL import Image

from stay_diffusion.sampling.batches import Made, make_all
from stay_diffusion.sampling.generate import image_generators
from stay_diffusion.system.launchers import World


@dataclass(frozen=True)
class Quality:
    score: float


def maker(calls):
    """Pictures that know their index and attempt by their size."""

    def make(indices, attempt):
        calls.append((list(indices), attempt))
        return [Made(Image.new("L", (index + 1, attempt + 1))) for index in indices]

    return make


def made_with(scores, num=4, **options):
    """scores[index][attempt] are what the judge gives; returns what came of each index, and the calls."""
    calls, came = [], {}
    make_all(
        maker(calls),
        num,
        2,
        lambda index, made: came.update({index: made}),
        judge=lambda index, made: Quality(scores[index][made.image.height - 1]),
        **options,
    )
    return came, calls


def test_only_what_is_below_the_least_score_is_drawn_again():
    scores = [[0.9], [0.1, 0.2, 0.8], [0.5], [0.4, 0.6]]
    came, calls = made_with(scores, least_score=0.5, most_attempts=5)
    assert {index: made.attempt for index, made in came.items()} == {0: 0, 1: 2, 2: 0, 3: 1}
    assert calls == [([0, 1], 0), ([1], 1), ([1], 2), ([2, 3], 0), ([3], 1)]


def test_of_pictures_that_never_pass_the_best_one_comes():
    came, _ = made_with([[0.1, 0.4, 0.2]], num=1, least_score=0.5, most_attempts=3)
    assert came[0].attempt == 1 and came[0].quality.score == 0.4


def test_without_a_judge_everything_is_drawn_once():
    calls, came = [], {}
    make_all(maker(calls), 3, 2, lambda index, made: came.update({index: made}))
    assert calls == [([0, 1], 0), ([2], 0)] and sorted(came) == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_whole_batches(size):
    shares = []
    for rank in range(size):
        calls, came = [], {}
        make_all(maker(calls), 7, 2, lambda index, made, came=came: came.update({index: made}), world=World(rank, size))
        assert all(indices in ([0, 1], [2, 3], [4, 5], [6]) for indices, _ in calls)
        shares += came
    assert sorted(shares) == list(range(7))


def test_what_is_done_is_not_given_again_but_drawn_with_its_batch():
    calls, came = [], {}
    make_all(maker(calls), 4, 2, lambda index, made: came.update({index: made}), done={0, 1, 3})
    assert calls == [([2, 3], 0)] and sorted(came) == [2]


def test_every_attempt_has_noise_of_its_own():
    seeds = {image_generators(0, [5], attempt=attempt)[0].initial_seed() for attempt in range(4)}
    assert len(seeds) == 4 and image_generators(0, [5])[0].initial_seed() in seeds


@pytest.mark.parametrize(("rank", "in_logs", "told"), [(0, True, True), (0, False, False), (1, True, False)])
def test_progress_goes_into_logs_where_it_is_wanted_and_once(capsys, rank, in_logs, told):
    make_all(maker([]), 4, 2, lambda index, made: None, world=World(rank, 2), in_logs=in_logs)
    assert ("2/2" in capsys.readouterr().err) == told
