from experiments import precision

EXPERIMENT = precision.of("tensorfloat32", "tensorfloat32")
