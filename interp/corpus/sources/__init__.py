"""The packaged corpora, a file for each kind; `packaged` has the table of their names."""
