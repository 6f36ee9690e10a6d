"""What several claims stand on: models and texts, measures, fine-tuned runs, flows, looks."""
