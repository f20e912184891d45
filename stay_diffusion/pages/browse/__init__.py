"""A page that shows a data set: images, boxes, counts."""
