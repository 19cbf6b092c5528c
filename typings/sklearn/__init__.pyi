"""Types of what is used of scikit-learn, which ships none."""
