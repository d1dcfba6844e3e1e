from experiments import precision

EXPERIMENT = precision.of("float32", "float32")
