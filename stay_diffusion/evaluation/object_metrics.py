"""The metrics of labelled objects: what classifiers and a detector that know real ones see in the boxes."""

from pathlib import Path

from ..detector import networks as detector
from ..detector.score import PER_IMAGE
from ..quality.crops import SIDE
from .box_crops import box_crops, channels_of
from .comparison import Comparison, file_facts
from .figures import Figure
from .gate_choice import check_gate, choose_gate
from .image_set import ImageSet
from .metric import Metric
from .metrics import cas, yolo_score
from .metrics.recognised import recognition

OVER_IMAGES = "standard error over images"


def check_boxes(images: ImageSet) -> None:
    """ValueError where nothing is asked for."""
    if not any(images.objects):
        raise ValueError(f"{images.path}: its {len(images.items)} pictures have no boxes")


def classes_of(*sides: ImageSet) -> tuple[str, ...]:
    return tuple(sorted({box.label for side in sides for boxes in side.objects for box in boxes}))


# CAS


def check_cas(comparison: Comparison) -> None:
    sides = comparison.labelled_samples, comparison.labelled_reference
    for side in sides:
        check_boxes(side)
    if len(classes_of(*sides)) < 2:
        raise ValueError(f"objects of one class alone, {classes_of(*sides)[0]}: there is nothing to tell apart")


def measure_cas(comparison: Comparison) -> tuple:
    sides, options = (comparison.labelled_samples, comparison.labelled_reference), comparison.options
    channels, value_range = channels_of(*sides), comparison.data.black_and_white
    samples, real = (box_crops(side, channels, value_range) for side in sides)
    seeds, flip = [options.seed + number for number in range(options.cas_seeds)], comparison.data.random_flip
    device, classes = comparison.reading.device, classes_of(*sides)
    right = cas.right_answers(samples, real, classes, seeds, flip, options.cas_steps, device, comparison.world)
    return right, samples, real, classes


def cas_figure(comparison: Comparison, found: tuple) -> list[Figure]:
    right, samples, real, classes = found
    options, score = comparison.options, cas.score(*found)
    told = comparison.facts() | {
        "classifier": f"the quality gate's, {options.cas_steps} steps, {options.cas_seeds} times",
        "learnt_from": f"{len(samples.labels)} boxes of the samples",
        "tested_on": f"{len(real.labels)} boxes of the reference",
        "classes": ", ".join(classes),
        "not_in_samples": ", ".join(name for name in classes if name not in samples.labels) or None,
        "crop": f"the box and as much around it, {SIDE}",
        "random_flip": comparison.data.random_flip,
        "seed": options.seed,
    }
    how = OVER_IMAGES + (" and classifiers" if len(right) > 1 else "")
    details = {"of_seeds": score.of_seeds, "per_class": score.per_class}
    return [Figure("CAS", score.accuracy.value, "higher", score.accuracy.standard_error, how, told, details)]


# Recognised boxes


def check_recognised(comparison: Comparison) -> None:
    check_boxes(comparison.labelled_samples)
    check_gate(comparison)


def recognised(comparison: Comparison, _) -> list[Figure]:
    """By the first process alone: a crop costs little beside reading its picture."""
    gate, origin = choose_gate(comparison)
    found = recognition(comparison.labelled_samples, gate)
    told = comparison.facts(with_reference=False) | {
        "gate": origin,
        "gate_digest": gate.protocol.get("digest"),
        "gate_right_about": right_about(gate.protocol["held_out"]["objects"]),
        "boxes": found.boxes,
        "crop": f"the box and as much around it, {SIDE}",
    }
    details = {"per_class": found.per_class}
    return [
        Figure(name, figure.value, "higher", figure.standard_error, OVER_IMAGES, told, details)
        for name, figure in (("class probability", found.probability), ("recognised boxes", found.recognised))
    ]


def right_about(held_out: dict) -> str:
    if held_out["accuracy"] is None:
        return "unknown: nothing was held out"
    return f"{held_out['accuracy']:.1%} of {held_out['crops']} real boxes that were held out"


# Detection score


def detector_file(comparison: Comparison) -> Path:
    name = comparison.options.detector
    if not name:
        raise ValueError("needs --detector FILE, a detector.pt of train_detector.py")
    if not Path(name).is_file():
        raise ValueError(f"--detector {name}: no such file (train_detector.py makes it)")
    return Path(name)


def check_detector(comparison: Comparison) -> None:
    import pycocotools  # noqa: F401, said where it is not installed

    check_boxes(comparison.labelled_samples)
    yolo_score.examples(comparison.labelled_samples, detector.load(detector_file(comparison)).classes)


def detect(comparison: Comparison) -> tuple:
    """What is found in the samples, and in the reference where its objects are known; all processes take part."""
    trained = detector.load(detector_file(comparison), comparison.reading.device)
    sides = {"": comparison.labelled_samples, " of the reference": annotated_reference(comparison, trained)}
    value_range, world = comparison.data.black_and_white, comparison.world
    found = {
        name: (side, yolo_score.detections(side, trained, value_range, world)) for name, side in sides.items() if side
    }
    return trained, found


def annotated_reference(comparison: Comparison, trained: detector.Detector) -> ImageSet | None:
    """The reference, if it has objects of the detector's classes."""
    try:
        reference = comparison.labelled_reference
        check_boxes(reference)
        yolo_score.examples(reference, trained.classes)
    except ValueError:
        return None
    return reference


def detection_figures(comparison: Comparison, found: tuple) -> list[Figure]:
    trained, sides = found
    options, figures = comparison.options, []
    for name, (side, detections) in sides.items():
        score, errors = yolo_score.score(side, detections, trained.classes, options.bootstrap, options.seed)
        how = f"standard error, bootstrap of {options.bootstrap}" if options.bootstrap > 1 else ""
        told = comparison.facts(with_reference=bool(name)) | {
            "detector_network": trained.name,
            **file_facts(detector=detector_file(comparison)),
            "scale": trained.scale,
            "objects": sum(each["objects"] for each in score.per_class.values()),
            "at_most": f"{PER_IMAGE} detections in a picture",
            **({"seed": options.seed} if how else {}),
        }
        for label, key in (("mAP", "map"), ("AP50", "ap50"), ("recall at 0.50", "recall50")):
            figure = f"detection score ({trained.name}), {label}{name}"
            details = {"per_class": score.per_class}
            figures.append(Figure(figure, getattr(score, key), "higher", errors[key], how, told, details))
    return figures


OBJECT_METRICS: dict[str, Metric] = {
    "cas": Metric(check_cas, measure_cas, cas_figure),
    "recognised": Metric(check_recognised, lambda comparison: None, recognised),
    "yolo_score": Metric(check_detector, detect, detection_figures),
}
