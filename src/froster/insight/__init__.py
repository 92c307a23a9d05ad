"""Looking at models: plots and the report page."""
