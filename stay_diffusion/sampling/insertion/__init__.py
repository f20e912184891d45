"""Objects drawn into whole images."""
