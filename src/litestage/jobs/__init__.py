"""One file a job: they wire the rooms, resume and time. `litestage.api` lists what a person uses of them."""
