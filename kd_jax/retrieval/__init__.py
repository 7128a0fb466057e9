"""Ranking a gallery for queries: exact scores, re-ranking, and the data sets' protocols."""
