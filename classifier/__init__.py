"""What training and app must agree on. Imports nothing here."""
