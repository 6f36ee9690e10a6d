"""What the paper's reviewers asked (notebook 08), from results that other rooms stored."""

#: Its figures, and the steps that they show.
FIGURES = {"08_exclusive": ("ablation",)}
