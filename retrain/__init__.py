"""Retraining jobs, models, evaluation, promotion, and the scorer beside the models it loads. The home of torch."""
