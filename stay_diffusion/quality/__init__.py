"""Score labelled images: each box against the real objects of the training data, of which copies are found too.

Letters: N crops, n boxes of one image, C channels (1 or 3), K classes, D width of features, P side of a crop with its
rim, S side of a crop.
"""
