"""One attack, model, training, representation and data set more: a file and an entry each, and nothing else."""
