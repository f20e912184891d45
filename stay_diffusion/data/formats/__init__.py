"""One module per annotation format; each has `read` and `write` and speaks only `ImageRecord`."""
