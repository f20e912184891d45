"""Images batch by batch: shared among processes, resumed where a run stopped, drawn again where not good enough."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from PIL import Image
from tqdm import tqdm

from ..data.annotations import RelativeBox
from ..quality.scores import ImageQuality
from ..system.launchers import ALONE, World


@dataclass(frozen=True)
class Judgement:
    """The quality gate's scores of an image, and the one that counts: 0 worst, 1 best, below 0 an unwanted copy."""

    of_image: ImageQuality
    score: float


@dataclass(frozen=True)
class Made:
    """A finished image; the same without its objects, and the image that they were put into, where there are such.

    `objects` are those in it, where these may be fewer than asked for; `redrawn` counts windows that were refused.
    `attempt` counts how often it had been drawn before.
    """

    image: Image.Image
    good_part: Image.Image | None = None
    source: Image.Image | None = None
    objects: tuple[RelativeBox, ...] | None = None
    redrawn: int = 0
    attempt: int = 0
    quality: Judgement | None = None


# Makes the images of some indices at their n-th attempt, in their order.
Make = Callable[[Sequence[int], int], list[Made]]
Judge = Callable[[int, Made], Judgement]


def make_all(
    make: Make,
    num: int,
    batch_size: int,
    on_image: Callable[[int, Made], None],
    done: AbstractSet[int] = frozenset(),
    world: World = ALONE,
    judge: Judge | None = None,
    least_score: float = 0.0,
    most_attempts: int = 1,
    in_logs: bool = True,
) -> None:
    """Call on_image(index, made) for every index below `num` that is not done.

    With `judge` every image gets a `quality`, and those whose score is below `least_score` are drawn again, up to
    `most_attempts` times in all; of images that stay below it the best one is kept. Progress is shown on a terminal
    and `in_logs`.

    Batches are cut at the same indices whatever is done and however many processes share them, in turn, so that a
    resumed or a shared run makes the very same images.
    """
    starts = range(0, num, batch_size)
    own = [range(start, min(start + batch_size, num)) for start in starts][world.rank :: world.size]
    total, finished = sum(map(len, own)), sum(i in done for indices in own for i in indices)
    hidden = not world.is_main or (False if in_logs else None)  # None: where no terminal is
    with tqdm(total=total, initial=finished, unit="image", mininterval=1.0, disable=hidden) as progress:
        for indices in own:
            missing = [i for i in indices if i not in done]
            if not missing:
                continue
            best: dict[int, Made] = {}
            pending = list(indices)
            for attempt in range(most_attempts if judge else 1):
                for i, made in zip(pending, make(pending, attempt), strict=True):
                    made = replace(made, attempt=attempt, quality=judge(i, made) if judge else None)
                    if i not in best or _score(made) > _score(best[i]):
                        best[i] = made
                pending = [i for i in pending if _score(best[i]) < least_score]
                if not pending:
                    break
            for i in missing:
                on_image(i, best[i])
            progress.update(len(missing))


def _score(made: Made) -> float:
    return made.quality.score if made.quality else 1.0
