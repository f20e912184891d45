"""From layouts to labelled images: where layouts come from, generation, export, previews."""
