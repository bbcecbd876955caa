"""The helper library of the study: a file is a concept, imports run downwards, importing does nothing."""
