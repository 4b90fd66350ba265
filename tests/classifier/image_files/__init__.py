"""The specification of classifier.image_files, one file for each of its modules."""
