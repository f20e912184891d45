"""Pictures batch by batch: shared among processes, continued where a run stopped, drawn again where not good enough."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from PIL import Image
from tqdm import tqdm

from ..data.annotations import RelativeBox
from ..system.launchers import ALONE, World


@dataclass(frozen=True)
class Made:
    """A finished picture; the same without its objects, and the picture that they were put into, where there are such.

    `objects` are those in it, where these may be fewer than asked for; `redrawn` counts what was refused of it.
    `attempt` counts how often it had been drawn before; `quality` is what judged it, with a `score` (0 worst, 1 best).
    """

    image: Image.Image
    good_part: Image.Image | None = None
    source: Image.Image | None = None
    objects: tuple[RelativeBox, ...] | None = None
    redrawn: int = 0
    attempt: int = 0
    quality: object = None


# Makes the pictures of some indices at their n-th attempt, in their order.
Make = Callable[[Sequence[int], int], list[Made]]
Judge = Callable[[int, Made], object]


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
    """Calls on_image(index, made) for every index below `num` that is not done.

    With `judge` every picture gets a `quality`, and those whose score is below `least_score` are drawn again, up to
    `most_attempts` times in all; of pictures that stay below it the best one comes.

    Progress is shown on a terminal and `in_logs`.

    Batches are cut at the same indices whatever is done and however many processes share them, in turn, so that a
    continued or a shared run makes the very same pictures.
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
            made = _best_of_attempts(make, indices, judge, least_score, most_attempts)
            for i in missing:
                on_image(i, made[i])
            progress.update(len(missing))


def _best_of_attempts(
    make: Make, indices: Sequence[int], judge: Judge | None, least_score: float, most_attempts: int
) -> dict[int, Made]:
    best: dict[int, Made] = {}
    pending = list(indices)
    for attempt in range(most_attempts):
        for i, made in zip(pending, make(pending, attempt), strict=True):
            made = replace(made, attempt=attempt, quality=judge(i, made) if judge else None)
            if i not in best or made.quality.score > best[i].quality.score:
                best[i] = made
        pending = [i for i in pending if judge and best[i].quality.score < least_score]
        if not pending:
            break
    return best
