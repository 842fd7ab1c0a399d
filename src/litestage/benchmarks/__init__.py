"""How fast the engine is, beside its peers: decode steps, whole questions, fewer bits, memory. Outside the API."""
