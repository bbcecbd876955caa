"""Recordings: data sets, clips, folds and splits, near-duplicates, pitch, downloads. Chapter 1."""
