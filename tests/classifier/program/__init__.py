"""The specification of classifier.program, one file for each of its modules."""
