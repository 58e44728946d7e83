"""The dashboard's pages. They show and ask; what they show is computed by the workbench."""
