from experiments import precision

EXPERIMENT = precision.of("bfloat16", "bfloat16")
