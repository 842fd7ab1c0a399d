"""Many machines, by Ray: workers behind the engine interface. Only who asks for a cluster loads Ray."""
