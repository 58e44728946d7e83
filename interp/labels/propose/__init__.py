"""Names for features, proposed without a person: a method a file."""
