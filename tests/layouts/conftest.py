import numpy as np
import pytest

from stay_diffusion.layouts.statistics import LayoutStatistics


@pytest.fixture(scope="session")
def count():
    """count(pictures, classes, products=(), size=(100, 100)) -> LayoutStatistics.

    A picture is (product or None, [(class, x0, y0, x1, y1), ...]), in pixels.
    """

    def build(pictures, classes, products=(), size=(100.0, 100.0)) -> LayoutStatistics:
        rows = []
        for product, objects in pictures:
            labels = np.array([classes.index(name) + 1 for name, *_ in objects], dtype=np.int64)
            boxes = np.array([box for _, *box in objects], dtype=np.float64).reshape(-1, 4)
            rows.append((size, products.index(product) + 1 if product else 0, boxes, labels))
        counts = [sum(name == each for _, objects in pictures for each, *_ in objects) for name in classes]
        return LayoutStatistics.of(classes, products, counts, rows)

    return build
