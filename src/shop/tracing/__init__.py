"""How spans are made and leave the process where tracing is on: the SDK's provider, sampler,
processors and variables, with lighter spans and a lighter encoding (docs/decisions/0017)."""
