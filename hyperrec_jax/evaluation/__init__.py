"""Scoring a split over a grid of preferences: metrics, fronts, lists, comparisons."""
