"""Experiments: data sets, and one file for each figure or table of a paper."""
