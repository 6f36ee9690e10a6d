"""What goes in: pinned archives, prompts as tables, hand-made words, and tiny stand-ins."""
