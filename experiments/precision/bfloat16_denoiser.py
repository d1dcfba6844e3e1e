from experiments import precision

EXPERIMENT = precision.of("bfloat16 denoiser", "float32", "bfloat16")
