"""The float64 reference: a model run in float64, against which both models' errors are measured."""
