"""SceneFID: the Frechet distance between the objects of two sets, each cut out of its image; lower is nearer.

arXiv 2003.07449. Every box is cut out as it is, clipped to its image, and resized to --crop_size squared (bicubic, by
default 224, as LAMA's code has it); the network's input is then resized as for FID.
"""

from ..comparison import Comparison, Pair
from ..figures import Figure
from ..image_set import Cut
from ..metric import Metric
from .fid import distance_figure


def scene_fid_figures(comparison: Comparison, pair: Pair) -> list[Figure]:
    samples, reference = comparison.objects
    first = samples.items[0]
    around = isinstance(first, Cut) and first.around
    facts = {
        "objects": f"{len(samples.items)} of the samples, {len(reference.items)} of the reference",
        "crop": "with what is around it" if around else f"the box, bicubic to {comparison.options.crop_size}",
    }
    return [distance_figure(comparison, "SceneFID", "SceneFD", pair, facts)]


METRIC = Metric(lambda comparison: comparison.objects, Comparison.object_pair, scene_fid_figures)
