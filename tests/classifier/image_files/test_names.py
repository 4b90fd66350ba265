"""Which names are those of images."""

from classifier.image_files.names import is_photo


def test_an_image_is_known_by_the_end_of_its_name_in_any_case() -> None:
    assert all(map(is_photo, ["1.jpg", "a/b.JPEG", "x.y.Png", "w.webp"]))
    assert not any(map(is_photo, ["jpg", "1.txt", "a.jpg/notes", "1.jpg.part"]))
