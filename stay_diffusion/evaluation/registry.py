"""The metrics of evaluate.py by name: what each needs, and the figures that come of it."""

from .diversity_metrics import DIVERSITY_METRICS
from .feature_metrics import FEATURE_METRICS
from .metric import Metric
from .model_metrics import MODEL_METRICS
from .object_metrics import OBJECT_METRICS

METRICS: dict[str, Metric] = FEATURE_METRICS | DIVERSITY_METRICS | OBJECT_METRICS | MODEL_METRICS
