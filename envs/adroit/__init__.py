"""The Adroit hand of gymnasium-robotics (Rajeswaran et al. 2018, arXiv 1709.10087): `hand` is what the four tasks share."""
