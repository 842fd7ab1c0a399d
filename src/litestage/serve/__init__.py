"""A task and a model over HTTP: one stepping engine, requests of all stages, plans and samplings in one batch."""
