"""Nothing in the folder of reference numbers goes unnoticed."""

import os


def test_every_file_of_the_folder_is_of_a_known_kind(group):
    assert group, f"STAY_REFERENCE_DIR={os.environ['STAY_REFERENCE_DIR']}: no such folder, or nothing in it"
    files = ", ".join(str(path) for path in group.files.values())
    assert group.kind, f"{files}: neither a network, nor a diffusion, nor LostGAN's ISLA"
